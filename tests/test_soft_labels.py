"""What the released code of randomised AT optimises, against its own way of computing it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_network, tiny_trainer
from test_trainer import bn_network

from awp_tf.functional import Recorder, read
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.methods import TRADES
from awp_tf.soft_labels import SoftLabelTRADES, last_layer_sums


def recorder(network):
    return Recorder(network, read(network.trainable_variables), read(network.non_trainable_variables))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [tiny_network, bn_network])
def test_the_closed_form_is_the_gradient_of_the_last_layer_summed_over_its_inputs(make):
    network = make()
    x, y = tiny_batch(8, "float64")
    kernel = [v.path for v in network.trainable_variables].index(f"{network.layers[-1].name}/kernel")
    weights = read(network.trainable_variables)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        predict = Recorder(network, weights, read(network.non_trainable_variables))
        loss = tf.reduce_mean(cross_entropy(predict(x), y))
    of_tape = tf.reduce_sum(tape.gradient(loss, weights)[kernel], axis=0)
    np.testing.assert_allclose(last_layer_sums(*recorder(network).with_features(x), y), of_tape, rtol=1e-10)
    as_probabilities = last_layer_sums(*recorder(network).with_features(x), tf.one_hot(y, 4, dtype=tf.float64))
    np.testing.assert_allclose(as_probabilities, of_tape, rtol=1e-10)


def test_features_come_with_the_logits_and_statistics_of_an_ordinary_pass():
    network, (x, _) = bn_network(), tiny_batch(8)
    plain, both = recorder(network), recorder(network)
    np.testing.assert_array_equal(plain(x), both.with_features(x)[0])
    for one, other in zip(plain.state, both.state, strict=True):
        np.testing.assert_array_equal(one, other)
    kernel, bias = network.layers[-1].kernel, network.layers[-1].bias
    logits, features = recorder(network).with_features(x)
    np.testing.assert_allclose(features @ kernel + bias, logits, rtol=1e-5, atol=1e-6)


def released(z, other, s, s_adv, y, alpha, beta):
    """The loss line by line as in trades_first_second.py, in NumPy, from the row sums of the gradients."""
    log_p, log_q = (v - np.log(np.exp(v).sum(1, keepdims=True)) for v in (z, other))
    classes = z.shape[1]
    true = 2 / classes

    def rows(v):
        v = v - v.min()
        v = v / v.sum()
        matrix = np.tile(v, (classes, 1))
        np.fill_diagonal(matrix, 0)
        matrix = (1 - true) * matrix / matrix.sum(1, keepdims=True)
        np.fill_diagonal(matrix, true)
        return matrix[y]

    def divergence(target, log_prediction):
        safe = np.where(target > 0, target, 1)
        return (target * (np.log(safe) - log_prediction)).sum(1).mean()

    a, b = (abs(s), abs(s_adv)), (s * s, s_adv * s_adv)
    y1, y2, yy = rows(a[0] - a[1]), rows(a[1] - a[0]), rows(b[1] - b[0])
    first = 0.5 * (divergence(y1, log_q) + divergence(y2, log_p))
    second = 0.5 * (divergence(yy, log_q) + divergence(yy, log_p))
    natural = -log_p[np.arange(len(y)), y].mean()
    kl = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    return (1 - alpha) * natural + beta * kl + alpha * first + 0.5 * alpha * second


@pytest.mark.usefixtures("float64")
def test_the_loss_is_that_of_the_released_code():
    network, (x, y) = tiny_network(), tiny_batch(8, "float64")
    x_adv = tf.clip_by_value(x + 0.1 * tf.sign(x - 0.4), 0, 1)
    parts = [recorder(network).with_features(images) for images in (x, x_adv)]
    sums = [last_layer_sums(*part, y).numpy() for part in parts]
    expected = released(*(part[0].numpy() for part in parts), *sums, y.numpy(), alpha=0.3, beta=2.0)
    ours = SoftLabelTRADES(beta=2.0, alpha=0.3).loss(recorder(network), x, x_adv, y)
    assert ours.shape == (8,)
    assert float(tf.reduce_mean(ours)) == pytest.approx(expected, rel=1e-10)


class Fixed:
    """A network in training whose logits and features are given."""

    def __init__(self, logits):
        self.logits = logits

    def with_features(self, x):
        return self.logits, tf.ones([len(self.logits), 3], self.logits.dtype)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_the_control_has_the_same_diagonal_and_is_uniform_beside_it(classes):
    """Its gradient in the logits is softmax minus target, which shows the target."""
    y = tf.constant([0, 1])
    z = tf.zeros([2, classes], tf.float64)
    gradients = {}
    for labels in ("uniform", "gradient"):
        with tf.GradientTape() as tape:
            tape.watch(z)
            method = SoftLabelTRADES(beta=0.0, alpha=0.2, labels=labels)
            loss = tf.reduce_sum(method.loss(Fixed(z), y, y, y))
        gradients[labels] = tape.gradient(loss, z).numpy()
    share = 2 / classes
    target = np.full((2, classes), (1 - share) / (classes - 1))
    target[[0, 1], [0, 1]] = share
    hard = np.eye(classes)[[0, 1]]
    # Clean and adversarial logits are the same ones here, so each term pulls with its whole weight.
    expected = 0.8 * (1 / classes - hard) + (0.2 + 0.1) * (1 / classes - target)
    np.testing.assert_allclose(gradients["uniform"], expected, atol=1e-12)
    np.testing.assert_allclose(np.diag(gradients["gradient"][:, :2]), np.diag(expected[:, :2]), atol=1e-12)


def test_without_soft_labels_it_is_trades_and_it_trains():
    network, (x, y) = tiny_network(), tiny_batch(8)
    plain = TRADES(beta=3.0).loss(recorder(network), x, x, y)
    np.testing.assert_allclose(SoftLabelTRADES(beta=3.0, alpha=0.0).loss(recorder(network), x, x, y), plain, rtol=1e-6)
    logs = tiny_trainer(network, method=SoftLabelTRADES()).train_step((x, y))
    assert np.isfinite(logs["loss"])


def test_what_does_not_fit_is_said_in_a_line():
    x, y = tiny_batch(4)
    with pytest.raises(UserError, match="expected a network in training"):
        SoftLabelTRADES().loss(lambda z: z, x, x, y)
    network = tiny_network()
    scaled = keras.Model(network.input, keras.layers.Rescaling(2.0, name="scale")(network.output))
    with pytest.raises(UserError, match=r"expected a network that ends in Dense\(K\) alone, received 'scale' last"):
        recorder(scaled).with_features(x)
    with pytest.raises(UserError, match=r"SoftLabelTRADES.labels: expected .*uniform"):
        SoftLabelTRADES(labels="even")
