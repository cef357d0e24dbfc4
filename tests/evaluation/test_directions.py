"""Directions in weight space."""

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.evaluation.passes import awp_direction, random_direction, shift
from awp_tf.noise import make_seed


def weights(seed=0):
    rng = np.random.default_rng(seed)
    shapes = ([3, 3, 2, 5], [5], [7, 4], [4])
    return [tf.constant(rng.normal(size=shape)) for shape in shapes]


def test_every_filter_of_a_direction_is_as_long_as_the_weights_own():
    direction = random_direction(weights(), make_seed(3))
    for w, d in zip(weights(), direction, strict=True):
        filters = [np.moveaxis(t.numpy(), -1, 0) for t in (w, d)]
        for one, other in zip(*filters, strict=True):
            expected = np.linalg.norm(one) if w.shape.rank > 1 else 0.0
            np.testing.assert_allclose(np.linalg.norm(other), expected, rtol=1e-9)


def test_a_filter_of_zeros_does_not_move():
    w = weights()
    w[0] = tf.concat([tf.zeros([3, 3, 2, 1], tf.float64), w[0][..., 1:]], axis=-1)
    direction = random_direction(w, make_seed(3))[0].numpy()
    assert not direction[..., 0].any()
    assert np.isfinite(direction).all()


def test_a_direction_is_its_seeds_own_and_gaussian():
    one, same, other = (random_direction(weights(), make_seed(seed))[0].numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    cosine = np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    assert abs(cosine) < 0.4  # 90 numbers: one standard deviation is 0.1
    large = [tf.ones([100, 100], tf.float64)]
    direction = random_direction(large, make_seed(0))[0].numpy()
    assert abs(direction.mean()) < 0.05
    assert abs(direction.std() - 1) < 0.01


def test_the_awp_direction_is_the_gradients_at_the_length_of_each_layer():
    gradients = weights(seed=5)
    direction = awp_direction(weights(), lambda at: gradients, make_seed(0))
    for w, g, d in zip(weights(), gradients, direction, strict=True):
        expected = g * tf.norm(w) / tf.norm(g) if w.shape.rank > 1 else tf.zeros_like(w)
        np.testing.assert_allclose(d, expected, atol=1e-12)


@pytest.mark.parametrize("coefficients", [(0.0, 0.0), (0.5, -2.0)])
def test_moving_adds_directions_and_leaves_the_weights(coefficients):
    w, before = weights(), [t.numpy() for t in weights()]
    d1, d2 = weights(1), weights(2)
    result = shift(w, [d1, d2], coefficients)
    for got, start, one, two in zip(result, before, d1, d2, strict=True):
        np.testing.assert_allclose(got, start + coefficients[0] * one + coefficients[1] * two, atol=1e-15)
    np.testing.assert_array_equal(w[0], before[0])
