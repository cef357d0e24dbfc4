import numpy as np
import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy, kl_divergence
from awp_tf.methods import AT, MART, TRADES, Standard


class Counting:
    """A linear network that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return tf.reshape(x, [len(x), -1])[:, :3] * 2.0


@pytest.fixture
def batch(rng):
    x, z = (tf.constant(rng.uniform(0, 1, (4, 2, 2, 1)), tf.float32) for _ in range(2))
    return x, z, tf.constant([0, 1, 2, 0])


@pytest.mark.parametrize("method", [Standard(), AT(), MART()], ids=repr)
def test_attack_climbs_the_cross_entropy(method, batch):
    x, z, y = batch
    value = method.objective(Counting(), x, y)(z)
    np.testing.assert_allclose(value, cross_entropy(Counting()(z), y), rtol=1e-6)


def test_trades_attack_climbs_the_kl_and_computes_the_clean_logits_once(batch):
    x, z, y = batch
    predict = Counting()
    objective = TRADES().objective(predict, x, y)
    for _ in range(3):
        value = objective(z)
    assert predict.calls == 1 + 3
    np.testing.assert_allclose(value, kl_divergence(Counting()(x), Counting()(z)), rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "order"),
    [(Standard(), ["x"]), (AT(), ["adv"]), (TRADES(), ["adv", "x"]), (MART(), ["x", "adv"])],
    ids=["Standard", "AT", "TRADES", "MART"],
)
def test_forward_passes_come_in_the_order_of_the_reference(method, order, batch):
    x, z, y = batch
    seen = []
    predict = lambda images: (seen.append("x" if images is x else "adv"), Counting()(images))[1]  # noqa: E731
    method.loss(predict, x, z, y)
    assert seen == order


def test_trades_gradient_flows_through_both_arguments_of_the_kl(batch):
    x, z, y = batch
    scale = tf.Variable(1.0)
    with tf.GradientTape(persistent=True) as tape:
        predict = lambda images: Counting()(images) * scale  # noqa: E731
        whole = TRADES(1.0).loss(predict, x, z, y)
        clean = predict(x)
        detached = tf.reduce_mean(cross_entropy(clean, y) + kl_divergence(tf.stop_gradient(clean), predict(z)))
    assert abs(tape.gradient(whole, scale) - tape.gradient(detached, scale)) > 1e-3


@pytest.mark.parametrize("method", [TRADES, MART])
def test_negative_beta_is_refused(method):
    with pytest.raises(UserError, match=r"beta: expected a number >= 0, received -1"):
        method(beta=-1)
