"""Whichever network a recipe names is trained, attacked, landscaped and exported, by the commands."""

import json

import gin
import numpy as np
import pytest
import tensorflow as tf
from helpers import run_command

import pipelines.evaluate
import pipelines.export
import pipelines.landscape
from awp_tf.data import digits
from awp_tf.networks.classifier import keras_file

FEW = ["validation/Measurement.examples=20", "test/Measurement.examples=40", "Data.validation=40"]
VIT = ["vit.patch=2", "vit.width=16", "vit.depth=1", "vit.heads=2", "PERTURB_FROM=0.5"]
LANDSCAPE = ["--alphas=-1:1:3", "--directions=1", "--awp_length=0.05", "--max_examples=20"]


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


def colour(place):
    """Digits of 32 x 32 pixels in three channels, as an .npz file."""
    source, arrays = digits(), {}
    for name, split in (("train", source.train), ("test", source.test)):
        arrays[f"x_{name}"] = np.kron(split.images, np.ones((1, 4, 4, 3), np.float32))
        arrays[f"y_{name}"] = split.labels
    np.savez(place / "colour.npz", **arrays)
    return ["--gin_file=gin/data/npz.gin", f"--gin_bindings=PATH='{place}/colour.npz'"]


def train(commands, leaf, workdir, *flags, bindings=()):
    said = [f"--gin_bindings={binding}" for binding in (*FEW, *bindings)]
    files = [f"--gin_file=gin/{leaf}.gin", "--gin_file=gin/digits.gin"]
    done = commands.train(*files, *flags, *said, f"--workdir={workdir}")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads((workdir / "result.json").read_text())["best"]


def all_that_follows(workdir, served_as, protocol="quick"):
    """AutoAttack, all of it or as a quick look, a landscape and an export of a run."""
    few = ["--max_examples=16", "--check_examples=4"]
    run_command(pipelines.evaluate, f"--workdir={workdir}", f"--gin_file=gin/protocols/{protocol}.gin", *few)
    accuracy = json.loads((workdir / "evaluation" / "evaluation.json").read_text())["accuracy"]["test"]
    assert 0 <= accuracy[protocol] <= accuracy[f"{protocol}/apgd-ce"] <= accuracy["clean"]
    assert accuracy["clean"] > 0.5
    run_command(pipelines.landscape, f"--workdir={workdir}", *LANDSCAPE)
    assert (workdir / "landscape" / "landscape.json").exists()
    run_command(pipelines.export, f"--workdir={workdir}", f"--output={workdir}/serving")
    served = tf.saved_model.load(str(workdir / "serving" / served_as / "1"))
    network = keras_file(workdir / "best.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (4, *network.input_shape[1:])).astype(np.uint8)
    found = served.signatures["serving_default"](images=tf.constant(pixels))["logits"]
    np.testing.assert_allclose(found, network(pixels / np.float32(255)), atol=1e-4)


@pytest.mark.slow
def test_a_vision_transformer(commands, tmp_path):
    bindings = [*VIT, "EPOCHS=12", "LEARNING_RATE=0.1"]
    result = train(commands, "trades_awp", tmp_path / "vit", "--gin_file=gin/networks/vit.gin", bindings=bindings)
    assert result["test_clean"] > 0.7
    assert result["test_robust"] > 0.3
    all_that_follows(tmp_path / "vit", "vit", protocol="standard")


@pytest.mark.slow
def test_a_network_of_keras(commands, tmp_path):
    """Its BatchNorm statistics move by 0.01 a step: in so short a run they are measured anew, of averaged weights."""
    bindings = ["application.name='MobileNet'", "application.settings={'alpha': 0.25}", "ATTACK=@FGSM()"]
    bindings += ["EPOCHS=6", "BATCH_SIZE=32", "LEARNING_RATE=0.1", "Linf.epsilon=0.05", "train.validate_every=6"]
    bindings += ["Recipe.averaging=@EMA", "EMA.decay=0.9", "EMA.statistics='recalibrated'", "AUGMENT=@NoAugment()"]
    flags = [*colour(tmp_path), "--gin_file=gin/networks/application.gin"]
    result = train(commands, "at", tmp_path / "keras", *flags, bindings=bindings)
    assert result["test_clean"] > 0.5
    all_that_follows(tmp_path / "keras", "keras")


@pytest.mark.slow
def test_a_network_of_a_file_trains_on(commands, tmp_path):
    before = train(commands, "trades_awp", tmp_path / "first", bindings=["small_cnn.width=8", "EPOCHS=8"])
    file = f"--network_file={tmp_path}/first/best.keras"
    after = train(commands, "trades_awp", tmp_path / "second", file, bindings=["EPOCHS=8"])
    assert after["test_robust"] > before["test_robust"]
