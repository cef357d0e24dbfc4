"""Every loss against a plain NumPy evaluation in double precision."""

import numpy as np
import pytest
import tensorflow as tf
from golden import MISC

from awp_tf import losses, methods


@pytest.fixture
def logits(rng):
    return rng.normal(0, 3, (16, 5)), rng.normal(0, 3, (16, 5)), rng.integers(0, 5, 16)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def true(p, y):
    return p[np.arange(len(y)), y]


def np_cross_entropy(z, y):
    return -np.log(true(softmax(z), y))


def np_kl(z, other):
    p, q = softmax(z), softmax(other)
    return (p * (np.log(p) - np.log(q))).sum(1)


def np_boosted(z, y):
    p = softmax(z)
    order = np.argsort(p, 1)[:, -2:]  # the official code looks at the two largest
    rival = np.where(order[:, 1] == y, order[:, 0], order[:, 1])
    return np_cross_entropy(z, y) - np.log(1.0001 - true(p, rival) + 1e-12)


def np_mart_regularizer(z, adversarial, y):
    p, q = softmax(z), softmax(adversarial)
    return (p * np.log(p) - p * np.log(q + 1e-12)).sum(1) * (1.0000001 - true(p, y))


def test_cross_entropy(logits):
    z, _, y = logits
    np.testing.assert_allclose(losses.cross_entropy(z, y), np_cross_entropy(z, y), rtol=1e-12)


def test_kl_divergence(logits):
    z, other, _ = logits
    np.testing.assert_allclose(losses.kl_divergence(z, other), np_kl(z, other), rtol=1e-12)
    np.testing.assert_array_equal(losses.kl_divergence(z, z), 0)


def test_kl_divergence_is_finite_for_extreme_logits():
    value = losses.kl_divergence(tf.constant([[1e4, 0.0]]), tf.constant([[0.0, 1e4]]))
    assert np.isfinite(value.numpy()).all()


def test_boosted_cross_entropy(logits):
    z, _, y = logits
    np.testing.assert_allclose(losses.boosted_cross_entropy(z, y), np_boosted(z, y), rtol=1e-12)


def test_mart_regularizer(logits):
    z, other, y = logits
    np.testing.assert_allclose(losses.mart_regularizer(z, other, y), np_mart_regularizer(z, other, y), rtol=1e-10)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (methods.Standard(), lambda z, a, y: np_cross_entropy(z, y)),
        (methods.AT(), lambda z, a, y: np_cross_entropy(a, y)),
        (methods.TRADES(6.0), lambda z, a, y: np_cross_entropy(z, y) + 6 * np_kl(z, a)),
        (methods.MART(5.0), lambda z, a, y: np_boosted(a, y) + 5 * np_mart_regularizer(z, a, y)),
    ],
    ids=["Standard", "AT", "TRADES", "MART"],
)
def test_outer_loss_of_every_method(logits, method, expected):
    clean, adversarial, y = logits
    outputs = {"x": tf.constant(clean), "x_adv": tf.constant(adversarial)}
    loss = method.loss(outputs.__getitem__, "x", "x_adv", tf.constant(y))
    np.testing.assert_allclose(loss, expected(clean, adversarial, y), rtol=1e-10)


GOLDEN_LOGITS = [
    [1.0, 2.0, 0.5, -1.0, 0.25],
    [3.0, -1.0, 2.5, 0.0, 1.0],
    [0.1, 0.2, 0.3, 0.4, 0.5],
    [2.0, 2.0, 1.0, 0.0, -1.0],
    [1.0, 1.0, 1.0, 1.0, 1.0],
]


@pytest.mark.parametrize("name", ["ce", "dlr", "dlrt"])
def test_losses_of_attacks_have_the_official_values_and_gradients(name):
    z, y, t = tf.constant(GOLDEN_LOGITS, tf.float64), tf.constant([1, 2, 0, 1, 2]), tf.constant([0, 0, 4, 0, 4])
    loss = {
        "ce": lambda: losses.cross_entropy(z, y),
        "dlr": lambda: losses.dlr(z, y),
        "dlrt": lambda: losses.targeted_dlr(z, y, t),
    }[name]
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss()
    np.testing.assert_allclose(value, MISC[f"loss/{name}"]["val"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tape.gradient(value, z), MISC[f"loss/{name}"]["grad"], rtol=1e-12, atol=1e-15)


def test_the_margin_is_above_0_where_the_image_is_misclassified():
    logits = tf.constant([[1.0, 3.0, 2.0], [5.0, 1.0, 2.0]])
    np.testing.assert_array_equal(losses.margin(logits, tf.constant([1, 1])), [-1, 4])
    np.testing.assert_array_equal(losses.targeted_margin(logits, tf.constant([1, 1]), tf.constant([2, 2])), [-1, 1])
