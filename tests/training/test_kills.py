"""kill -9 at any moment, inside writes, validation and the final test too: the run ends as if nothing had happened."""

import json
import random

import keras
import numpy as np
import pytest
from helpers import weights_of

pytestmark = pytest.mark.slow

SETTINGS = (
    "EPOCHS=3",
    "Data.limit=256",
    "BATCH_SIZE=32",  # 8 steps an epoch
    "training/PGD.steps=2",
    "validation/Measurement.examples=60",
    "validation/Measurement.batch_size=20",
    "test/Measurement.examples=80",
    "test/Measurement.batch_size=4",
    "train.checkpoint_minutes=1e-6",  # after every step
)
AIMED = [
    *(("replaced", n) for n in (1, 3, 8)),
    *(("written", n) for n in (1, 4)),
    *(("measured", n) for n in (1, 8)),
]


def arguments(folder, *settings):
    files = [f"--gin_file=gin/{name}.gin" for name in ("at_awp", "digits")]
    return [*files, *(f"--gin_bindings={each}" for each in (*SETTINGS, *settings)), f"--workdir={folder}"]


def finish(commands, folder, *settings):
    done = commands.train(*arguments(folder, *settings))
    assert done.returncode == 0, done.stderr
    return folder


def kill_again_and_again(commands, place, moments, *settings):
    """Folders of runs, each started as often as it takes; all moments are used up, the last runs end in peace."""
    folders, killed = [place / "run0"], 0
    for moment in moments:
        if (folders[-1] / "result.json").exists():
            folders.append(place / f"run{len(folders)}")
        code = commands.train(*arguments(folders[-1], *settings), kill=moment).returncode
        assert code in (0, -9), (moment, code)
        killed += code == -9
    return [finish(commands, folder, *settings) for folder in folders], killed


def assert_same(one, other, atol):
    for name in ("best", "last"):
        pair = (weights_of(keras.models.load_model(folder / f"{name}.keras")) for folder in (one, other))
        for a, b in zip(*pair, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert results[0] == results[1]
    assert not list(other.glob(".*part*"))
    assert not (other / "testing.json").exists()


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    return finish(commands, tmp_path_factory.mktemp("whole") / "whole")


def test_kills_at_any_moment_change_no_bit(commands, whole, tmp_path):
    chance = random.Random(0)
    moments = [*AIMED, *(("seconds", round(chance.uniform(1, 9), 2)) for _ in range(4))]
    chance.shuffle(moments)
    folders, killed = kill_again_and_again(commands, tmp_path, moments)
    assert killed >= 9 - len(folders), moments
    for folder in folders:
        assert_same(whole, folder, atol=0)
        assert (folder / "history.json").read_bytes() == (whole / "history.json").read_bytes()


def test_kills_on_two_replicas_change_nothing_but_rounding(commands, tmp_path):
    settings = ("train.devices=2", "Recipe.precision='float64'")
    moments = [("written", 3), ("replaced", 4), ("seconds", 14), ("measured", 2)]
    whole = finish(commands, tmp_path / "whole", *settings)
    folders, killed = kill_again_and_again(commands, tmp_path, moments, *settings)
    assert killed >= 3
    for folder in folders:
        assert_same(whole, folder, atol=1e-12)


def test_a_disk_that_fills_up_stops_the_run_cleanly_and_costs_nothing(commands, whole, tmp_path):
    folder = tmp_path / "run"
    for n in (1, 4, 7):
        done = commands.train(*arguments(folder), kill=("full", n))
        assert done.returncode == 2
        (said,) = done.stderr.strip().splitlines()
        assert said.startswith("error: cannot be written: ")
        assert not list(folder.glob(".*part*"))
    assert_same(whole, finish(commands, folder), atol=0)


def test_a_checkpoint_that_finds_no_room_half_way_stops_the_run_cleanly_and_costs_nothing(commands, whole, tmp_path):
    folder = tmp_path / "run"
    assert commands.train(*arguments(folder), kill=("written", 4)).returncode == -9
    checkpoint = min(file.stat().st_size for file in (whole / "checkpoints").glob("*.data-*"))
    assert (whole / "last.keras").stat().st_size < checkpoint // 4 * 3  # so that it is a checkpoint that fails
    done = commands.train(*arguments(folder), kill=("room", checkpoint // 4 * 3))
    assert done.returncode == 2, done.stderr
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("error: cannot be written: ")
    assert_same(whole, finish(commands, folder), atol=0)


def test_data_that_change_before_the_run_goes_on_are_refused_in_one_line(commands, tmp_path, rng):
    images, labels, folder = rng.random((120, 8, 8, 1), "float32"), np.arange(120) % 10, tmp_path / "run"
    data = tmp_path / "data.npz"
    files = [f"--gin_file=gin/{name}.gin" for name in ("at", "digits", "data/npz")]
    bindings = [
        f"--gin_bindings={each}" for each in (f"PATH='{data}'", "Data.validation=60", "EPOCHS=1", *SETTINGS[2:])
    ]
    codes = []
    for shift, kill in ((0, ("written", 2)), (1, None), (0, None)):
        np.savez(data, x_train=images, y_train=(labels + shift) % 10, x_test=images, y_test=labels)
        done = commands.train(*files, *bindings, f"--workdir={folder}", kill=kill)
        codes.append((done.returncode, done.stderr))
    assert codes[0][0] == -9, codes[0][1]
    assert codes[1][0] == 2
    assert codes[1][1].startswith("error: ")
    assert codes[1][1].count("\n") == 1
    assert codes[2][0] == 0
