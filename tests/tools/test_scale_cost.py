import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.data import Batches, Data, PadCropFlip, digits
from awp_tf.methods import AT
from awp_tf.networks import small_cnn
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from tools import scale_cost

ROWS = [
    *("2 devices, the same batch", "2 devices: reductions"),
    *("2 devices, m_sharpness, the same batch", "2 devices, m_sharpness: reductions"),
    *("2 processes, ring: reductions", "2 processes, ring, m_sharpness: reductions"),
    *("input, in memory", "input, image files in place"),
    *("checkpoint, to 30 minutes", "checkpoint, to an epoch of 50,000 images"),
    "first step, going on at 50,000",
]


@pytest.mark.slow
def test_the_table_has_a_line_for_each_cost():
    gin = ["--gin_file=gin/at_awp.gin", "--gin_file=gin/networks/small_cnn.gin", "--gin_bindings=PadCropFlip.pad=2"]
    line = [sys.executable, "-m", "tools.benchmark", *gin, "--scale", "--batch_sizes=8", "--shape=8,8,3", "--runs=1"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[1].startswith("one device: ")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    assert [row[0].split(" (")[0] for row in rows] == ROWS
    assert all(float(row[2].split()[0]) > 0 for row in rows[:-1])
    assert [row[1].split("step (")[1][:1] for row in rows if "reductions" in row[0]] == ["3", "2"] * 2
    assert all((row[3] == "") == (row[4] == "") for row in rows)


def test_a_ratio_is_the_median_of_the_turns():
    seconds = {"a": [1.0, 9.0, 4.0], "b": [1.0, 3.0, 2.0]}
    assert scale_cost.ratio(seconds, "a", "b") == 2.0


def test_what_misses_its_target_is_said():
    slow = {"one": [0.001], "save": [30.0]}
    (half_hour, epoch) = scale_cost._checkpoint_rows(50, slow)
    assert (half_hour.value, half_hour.met) == ("1.6667 %", "NO")
    assert (epoch.value, epoch.met) == ("3000.0000 %", "NO")


@pytest.fixture
def setting(rng):
    recipe = Recipe(small_cnn, AT(), PGD(Linf(0.1), steps=1), Constant(0.1))
    x, y = rng.uniform(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4, dtype=np.int32)
    return scale_cost.Setting(recipe, Data(digits, augment=PadCropFlip(2)), x, y, 10)


def test_batches_are_of_the_datas_augmentation_and_of_any_number_of_images(setting):
    batches = setting.batches(np.zeros((10, 8, 8, 1), np.uint8))
    assert (batches.augment, batches.batch_size, len(batches.split)) == (PadCropFlip(2), 4, 10)


def test_a_resumed_run_begins_with_the_batch_of_its_checkpoint(setting, tmp_path, monkeypatch):
    shares, starts = Batches.shares, []
    monkeypatch.setattr(Batches, "shares", lambda self, *steps: starts.append(steps[0]) or shares(self, *steps))
    step = setting.step(tf.distribute.get_strategy())
    scale_cost._save(scale_cost._records(tmp_path / "run", step))
    row = scale_cost._resume_row(setting, tmp_path / "run", runs=1)
    assert starts == [0, scale_cost.LATE]
    assert row.met == "yes"
