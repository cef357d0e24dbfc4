"""Every recipe trains on the embedded digits, from the command line to its result."""

import json
import pathlib
import re

import numpy as np
import pytest

from awp_tf.data import digits
from awp_tf.networks import small_cnn

ROOT = pathlib.Path(__file__).parents[2]
TRAINS = re.compile(r"^include 'gin/(defaults|rst|pretrain)\.gin'", re.MULTILINE)  # those of pipelines.train
LEAVES = sorted(path.stem for path in (ROOT / "gin").glob("*.gin") if TRAINS.search(path.read_text()))
QUICK = ["EPOCHS=4", "Data.limit=600", "test/Measurement.examples=100", "validation/Measurement.examples=100"]


def of_others(leaf, folder):
    """What a leaf needs beside its name: flags."""
    if leaf.startswith("pretrain"):
        small_cnn(shape=(8, 8, 1), classes=7, width=4).save(folder / "before.keras")
        return ["--gin_file=gin/networks/pretrained.gin", f"--gin_bindings=PRETRAINED='{folder / 'before.keras'}'"]
    if leaf.startswith(("rst", "dm_")):
        extra = digits().train.take(slice(300, 500))
        np.savez(folder / "extra.npz", image=extra.images, label=extra.labels)
        return ["--gin_bindings=small_cnn.width=8", f"--gin_bindings=EXTRA='{folder / 'extra.npz'}'"]
    return ["--gin_bindings=small_cnn.width=8"]


@pytest.mark.slow
@pytest.mark.parametrize("leaf", LEAVES)
def test_a_recipe_trains_on_the_digits(leaf, tmp_path, commands):
    flags = [f"--gin_file=gin/{leaf}.gin", "--gin_file=gin/digits.gin", *of_others(leaf, tmp_path)]
    done = commands.train(*flags, *(f"--gin_bindings={each}" for each in QUICK), f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result) == {"best", "last"}
    losses = [epoch["train/epoch_loss"] for epoch in json.loads((tmp_path / "run" / "history.json").read_text())]
    assert len(losses) == 4
    assert min(losses[1:]) < losses[0]
    assert np.isfinite(losses).all()
