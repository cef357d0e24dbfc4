"""Catastrophic overfitting is told apart from everything else that accuracy does."""

import pytest

from awp_tf.training.collapse import collapse

BEFORE = [
    {"epoch": 3, "validation/robust": 0.30, "validation/clean": 0.60, "train/epoch_loss": 1.5},
    {"epoch": 4, "train/epoch_loss": 1.4},  # not measured
]


def line(robust, loss):
    return collapse(BEFORE, {"validation/robust": robust, "validation/clean": 0.5, "train/epoch_loss": loss})


def test_robust_accuracy_that_is_gone_while_the_loss_falls_is_said():
    said = line(0.02, 1.2)
    assert "fell from 30.0 to 2.0 % since epoch 3, while the training loss went on falling: catastrophic overf" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("robust", "loss"), [(0.25, 1.2), (0.16, 1.2), (0.02, 2.3), (0.40, 1.2)], ids=["little", "half", "diverged", "up"]
)
def test_what_happens_every_day_is_not(robust, loss):
    assert line(robust, loss) is None


def test_without_a_measurement_or_anything_to_lose_nothing_is_said():
    assert collapse([], {"validation/robust": 0.0, "train/epoch_loss": 1.0}) is None
    assert collapse(BEFORE, {"train/epoch_loss": 1.0}) is None
    little = [{"epoch": 1, "validation/robust": 0.08, "train/epoch_loss": 2.0}]
    assert collapse(little, {"validation/robust": 0.0, "train/epoch_loss": 1.0}) is None
