"""Labels for images that have none."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import CLASSES, SHAPE, read_npz, run_command, tiny_network, tiny_split, weights_of

from awp_tf.data import ordered
from awp_tf.data.extra import provenance, read
from awp_tf.data.sources import Source
from awp_tf.infra import signals
from awp_tf.infra.checkpoints import save_network
from awp_tf.infra.errors import UserError
from awp_tf.networks.classifier import digest
from tools import pseudo_label

ROOT = pathlib.Path(__file__).parents[2]
DATA = tiny_split(50)


@pytest.fixture
def place(tmp_path):
    """A folder with model.keras and images.npz."""
    network = tiny_network()
    network.set_weights([2 * weight for weight in weights_of(network)])
    last = network.weights[-1]  # the bias; with this one it says every class of some images
    last.assign(last - keras.ops.mean(network(DATA.images), axis=0))
    save_network(network, tmp_path / "model.keras")
    np.savez(tmp_path / "images.npz", x_train=DATA.images)
    return tmp_path


def flags(place, *more, output="pseudo.npz", **changed):
    given = {"network": place / "model.keras", "data": place / "images.npz", "output": place / output, "batch_size": 16}
    return [*(f"--{name}={value}" for name, value in {**given, **changed}.items() if value is not None), *more]


def label(place, *more, **changed):
    run_command(pseudo_label, *flags(place, *more, **changed))


def test_labels_are_what_the_network_says_and_the_file_says_how_they_were_made(place, capsys):
    label(place)
    network = pseudo_label.load(str(place / "model.keras"))
    said = np.concatenate([np.argmax(network.predict(x), axis=1) for x, _ in ordered(DATA, 7)])
    with np.load(place / "pseudo.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["label"], said)
        np.testing.assert_array_equal(data["image"], DATA.images)
        assert (data["label"].dtype, data["image"].dtype) == (np.int32, np.float32)
    made = provenance(place / "pseudo.npz")
    assert (made["network"], made["network digest"]) == ("small_cnn", digest(place / "model.keras"))
    assert (made["classes"], made["class names"], made["data"]) == (CLASSES, [], str(place / "images.npz"))
    assert made["software"]["tensorflow"]
    assert set(said) == set(range(CLASSES))
    assert "50 of 50 images" in capsys.readouterr().out
    assert {file.name for file in place.iterdir()} == {"model.keras", "images.npz", "pseudo.npz"}
    assert len(read(str(place / "pseudo.npz"), Source("tiny", tiny_split(9), tiny_split(9), CLASSES))) == 50


def test_only_images_that_the_network_is_sure_of_are_kept(place):
    label(place)
    label(place, "--min_confidence=0.95", output="sure.npz")
    everything, sure = (read_npz(place / name) for name in ("pseudo.npz", "sure.npz"))
    found = [image.tobytes() for image in everything["image"]]
    places = [found.index(image.tobytes()) for image in sure["image"]]
    assert 0 < len(places) < 50
    assert places == sorted(places)
    np.testing.assert_array_equal(everything["label"][places], sure["label"])
    save_network(tiny_network(), place / "unsure.keras")
    with pytest.raises(
        UserError, match=r"--min_confidence: expected at most 0\.\d+, .*; the same command goes on with a lower one"
    ):
        label(place, "--min_confidence=0.95", network=place / "unsure.keras", output="none.npz")
    assert not (place / "none.npz").exists()


@pytest.mark.parametrize("after", [1, 3])
def test_what_was_stopped_by_a_signal_ends_with_the_same_bytes(place, monkeypatch, after):
    label(place, output="whole.npz")
    calls, check = [], signals.Interrupt.check
    monkeypatch.setattr(signals.Interrupt, "check", lambda self: stop_at(self, calls, after, check))
    with pytest.raises(signals.Interrupted):
        label(place)
    assert not (place / "pseudo.npz").exists()
    monkeypatch.undo()
    for changed, what in (({"batch_size": 8}, "batch size"), ({"data": "digits"}, "images")):
        with pytest.raises(UserError, match=f"holds pseudo-labels of another {what}"):
            label(place, **changed)
    looked = []
    real = pseudo_label._likeliest
    monkeypatch.setattr(pseudo_label, "_likeliest", lambda network: lambda x: looked.append(len(x)) or real(network)(x))
    label(place)
    assert sum(looked) == 50 - 16 * after
    assert (place / "pseudo.npz").read_bytes() == (place / "whole.npz").read_bytes()
    assert not (place / "pseudo.npz.state").exists()


def stop_at(interrupt, calls, after, check):
    calls.append(1)
    if len(calls) == after:
        raise signals.Interrupted(15)
    check(interrupt)


KILLED = """
import os, sys
from tools import pseudo_label
pseudo_label._SECONDS_PER_SAVE = 0.0
real = pseudo_label._save
def save(file, parts):
    found = real(file, parts)
    if len(found.label) == 32:
        os._exit(9)
    return found
pseudo_label._save = save
pseudo_label._main.main(pseudo_label.run)
"""


@pytest.mark.slow
def test_what_was_killed_ends_with_the_same_bytes(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for code, output, command in (
        (9, "pseudo", ["-c", KILLED]),
        *((0, n, ["-m", "tools.pseudo_label"]) for n in NAMES),
    ):
        line = [sys.executable, *command, *flags(place, output=f"{output}.npz")]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert (place / "pseudo.npz").read_bytes() == (place / "whole.npz").read_bytes()


NAMES = ("pseudo", "whole")


def test_a_run_lends_its_best_network_and_the_names_of_its_classes(place):
    run = place / "run"
    run.mkdir()
    (run / "config.gin").write_text("")
    (run / "data.json").write_text(json.dumps({"class names": list("abcd")}))
    (place / "model.keras").rename(run / "best.keras")
    label(place, f"--workdir={run}", network=None)
    assert provenance(place / "pseudo.npz")["class names"] == list("abcd")
    source = Source("tiny", tiny_split(9), tiny_split(9), CLASSES, list("abce"))
    with pytest.raises(UserError, match="another data set: class names"):
        read(str(place / "pseudo.npz"), source)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network": "none.keras"}, r"network: expected a \.keras file"),
        ({"network": None}, r"network: expected a \.keras file"),
        ({"workdir": "none"}, "expected the folder of a run"),
        ({"data": None}, "--data: expected it"),
        ({"data": "none.npz"}, r"none\.npz: expected an \.npz file"),
        ({"data": "other.npz"}, r"expected images of \[8, 8, 1\], which the network takes, received \[9, 8, 1\]"),
        ({"data": "bright.npz"}, r"floats in \[0, 1\], received others in \[255, 255\]"),
        ({"output": "pseudo.h5"}, r"--output: expected a name that ends in \.npz"),
        ({"output": "images.npz"}, r"images\.npz exists; choose another name"),
        ({"batch_size": 0}, "--batch_size: expected a whole number >= 1"),
        ({"min_confidence": 1}, r"--min_confidence: expected a number in \[0, 1\)"),
        ({"gin_file": "gin/at.gin"}, "--gin_file, --gin_bindings: expected neither"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(place, monkeypatch, changed, message):
    np.savez(place / "other.npz", image=np.zeros((3, SHAPE[0] + 1, *SHAPE[1:]), np.float32))
    np.savez(place / "bright.npz", image=255 * np.ones((3, *SHAPE), np.float32))
    before = sorted(place.iterdir())
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match=message) as error:
        label(place, **{"output": place / "pseudo.npz", **changed})
    assert "\n" not in str(error.value)
    assert sorted(place.iterdir()) == before
