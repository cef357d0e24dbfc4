import numpy as np
import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.transforms import ClipByGlobalNorm, NoTransform


def gradients():
    return [tf.constant([[3.0, 0.0]]), tf.constant([4.0])]  # of norm 5


def test_longer_gradients_are_scaled_together_and_shorter_ones_stay():
    weights = [tf.zeros([1, 2]), tf.zeros([1])]
    clipped = ClipByGlobalNorm(1.0)(gradients(), weights)
    for got, expected in zip(clipped, ([[0.6, 0.0]], [0.8]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    for transform in (ClipByGlobalNorm(6.0), NoTransform()):
        for got, given in zip(transform(gradients(), weights), gradients(), strict=True):
            np.testing.assert_allclose(got, given, rtol=1e-6)


@pytest.mark.parametrize("limit", [0, -1.0, "1"])
def test_a_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(UserError, match=r"ClipByGlobalNorm\.limit: expected a number > 0"):
        ClipByGlobalNorm(limit)
