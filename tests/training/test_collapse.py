"""Catastrophic overfitting is told apart from everything else that accuracy does."""

import pytest

from awp_tf.training.collapse import collapse

BEFORE = [
    {"epoch": 3, "validation/robust": 0.30, "validation/clean": 0.60},
    {"epoch": 4, "train/epoch_loss": 1.0},  # not measured
]


def line(robust, clean):
    return collapse(BEFORE, {"validation/robust": robust, "validation/clean": clean})


def test_robust_accuracy_that_is_gone_while_clean_accuracy_stays_is_said():
    said = line(0.02, 0.70)
    assert "fell from 30.0 to 2.0 % since epoch 3, clean accuracy did not: catastrophic overfitting" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("robust", "clean"),
    [(0.25, 0.60), (0.16, 0.60), (0.02, 0.10), (0.40, 0.70)],
    ids=["a little", "half", "both", "up"],
)
def test_what_happens_every_day_is_not(robust, clean):
    assert line(robust, clean) is None


def test_without_a_measurement_nothing_is_said():
    assert collapse([], {"validation/robust": 0.0, "validation/clean": 0.5}) is None
    assert collapse(BEFORE, {}) is None
    assert (
        collapse(
            [{"epoch": 1, "validation/robust": 0.04, "validation/clean": 0.1}], BEFORE[0] | {"validation/robust": 0.0}
        )
        is None
    )
