import math

import numpy as np
import pytest

from awp_tf.continual.metrics import forgetting, summary
from awp_tf.infra.errors import UserError

ROWS = [[0.9], [0.8, 0.95], [0.5, 0.85, 0.9]]


def test_a_matrix_worked_out_by_hand():
    found = summary(ROWS)
    assert found["acc"] == pytest.approx((0.5 + 0.85 + 0.9) / 3)
    assert found["bwt"] == pytest.approx(((0.5 - 0.9) + (0.85 - 0.95)) / 2)
    assert found["bwt_over_t"] == pytest.approx(found["bwt"] * 2 / 3)
    assert found["learning_accuracy"] == pytest.approx((0.9 + 0.95 + 0.9) / 3)
    assert all(type(value) is float for value in found.values())  # or JSON refuses them


def test_of_one_task_there_is_no_backward_transfer():
    found = summary([[0.7]])
    assert math.isnan(found["bwt"])
    assert (found["acc"], found["learning_accuracy"], found["bwt_over_t"]) == (0.7, 0.7, 0.0)


def test_an_unfinished_run_is_one_of_fewer_tasks():
    assert summary(ROWS[:2])["bwt"] == pytest.approx(0.8 - 0.9)


def test_backward_transfer_can_help():
    assert summary([[0.5], [0.75, 0.5]])["bwt"] == 0.25
    assert forgetting([[0.5], [0.75, 0.5]]) == [-0.25, 0.0]


def test_forgetting_is_what_backward_transfer_is_the_mean_of(rng):
    rows = [list(rng.random(i + 1)) for i in range(7)]
    lost = forgetting(rows)
    assert lost[-1] == 0
    assert -np.mean(lost[:-1]) == pytest.approx(summary(rows)["bwt"])
    assert -np.mean(lost) == pytest.approx(summary(rows)["bwt_over_t"])


@pytest.mark.parametrize("rows", [[], [[0.5, 0.5]], [[0.5], [0.5]], [[0.5], [0.5, 0.5, 0.5]]])
def test_what_is_no_lower_triangle_is_refused(rows):
    with pytest.raises(UserError, match="rows: expected accuracies on 1, 2, 3"):
        summary(rows)
