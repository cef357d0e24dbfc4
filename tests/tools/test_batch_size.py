import json
import subprocess
import sys

import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from tools import batch_size
from tools.batch_size import Try, search

SMALL = ["--gin_file=gin/at_awp.gin", "--gin_file=gin/networks/small_cnn.gin", "--runs=1"]


class Room:
    """A machine that has room for so many images."""

    def __init__(self, most):
        self.most, self.tried = most, []

    def __call__(self, batch):
        self.tried.append(batch)
        return batch <= self.most


@pytest.mark.parametrize("most", [0, 1, 3, 7, 8, 15, 16, 100, 127, 128])
def test_the_largest_batch_is_found_to_within_eight(most):
    found = search(Room(most), devices=1)
    assert most - 8 < found <= most or found == most == 0
    assert found in (0, 1, 2, 4) or found % 8 == 0


def test_devices_have_equal_shares_and_large_batches_take_few_tries():
    room = Room(3000)
    found = search(room, devices=3)
    assert 3000 - 3000 / 16 < found <= 3000
    assert all(batch % 24 == 0 for batch in room.tried)
    assert len(room.tried) == len(set(room.tried)) <= 14


def test_what_always_fits_ends_the_search():
    assert search(Room(10**9), devices=1, most=64) == 64


@pytest.fixture
def tries(monkeypatch):
    """Ten images take a GiB, and accumulation divides it."""

    def attempt(arguments, batch, limit):
        parts = next((int(text.split("=")[-1]) for text in arguments if "accumulation" in text), 1)
        peak = batch / parts / 10
        return Try(batch, peak <= limit, peak, speed=100.0 - abs(batch - 32))

    monkeypatch.setattr(batch_size, "attempt", attempt)


def test_it_says_what_fits_and_how_the_recipes_own_batch_can_be_had(tries, capsys, recipe):
    batch_size.find([], recipe, own=128, devices=1, gib=5.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4] == "largest batch that fits: 48"
    assert lines[-3] == "fastest: 32, 100.00 images/s"
    assert lines[-2].startswith("accumulation 3: batch 128: fits, peak 4.27 GiB")
    assert lines[-1] == "BATCH_SIZE=128 of the recipe: take Recipe.accumulation=3"


def test_a_limit_that_one_image_exceeds_is_refused(tries, recipe):
    with pytest.raises(UserError, match=r"expected room for a step of 1 image\(s\), which takes 0.10 GiB and more"):
        batch_size.find([], recipe, own=128, devices=1, gib=0.05)
    with pytest.raises(UserError, match="--memory_gib: expected a number > 0"):
        batch_size.find([], recipe, own=128, devices=1, gib=-1.0)


@pytest.fixture
def recipe():
    class Plain:
        replays = accumulation = 1

    return Plain()


def test_a_process_that_takes_too_much_is_ended_and_another_failure_is_said(monkeypatch):
    assert not batch_size.attempt(SMALL, 8, limit=0.1).fits
    with pytest.raises(
        UserError, match="batch 8: its process ended with exit code 2: --gin_file: expected an existing"
    ):
        batch_size.attempt(["--find_batch_size", "--gin_file=none.gin"], 8, limit=9.0)


@pytest.mark.slow
def test_the_limit_is_found_with_real_steps():
    """Images so large that some fit into the limit, and a few more do not."""
    line = [sys.executable, "-m", "tools.benchmark", *SMALL, "--find_batch_size", "--shape=64,64,3"]
    settings = ["--memory_gib=1.0", "--gin_bindings=BATCH_SIZE=96"]
    done = subprocess.run([*line, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    largest = int(said.split("largest batch that fits: ")[1].split()[0])
    assert f"batch {largest}: fits" in said
    assert 0 < largest < 96
    assert ": does not fit, 1.0" in said
    assert "BATCH_SIZE=96 of the recipe: take Recipe.accumulation=" in said


@pytest.mark.parametrize(
    ("error", "fits"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), False),
        (tf.errors.NotFoundError(None, None, "No algorithm worked!"), False),  # cuDNN's
        (tf.errors.InternalError(None, None, "nan"), None),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, fits, monkeypatch, recipe):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(batch_size, "SharedStep", fail)
    if fits is None:
        with pytest.raises(tf.errors.InternalError):
            batch_size.measure(recipe, [0], [0], 1, None, 1)
    else:
        assert json.loads(batch_size.measure(recipe, [0], [0], 1, None, 1))["fits"] is fits
