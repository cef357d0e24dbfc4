import numpy as np
import pytest
import tensorflow as tf
from golden import examples_of, mlp, seeds_of

from awp_tf.attacks import FGSM, PGD, LastIterate, Transfer, untargeted
from awp_tf.attacks.search import LOSSES, climb, pick, run
from awp_tf.infra.errors import UserError
from awp_tf.losses import misclassified
from awp_tf.threats import Linf


@pytest.fixture(scope="module")
def network():
    return mlp(8, 8, 16, 10, 0)


def test_once_is_judged_by_the_last_image_of_its_attack(network):
    examples = examples_of(network)
    attack = PGD(Linf(0.004), steps=5)
    state = run(LastIterate(attack), network, examples, seeds_of(examples))
    expected = attack(untargeted(network, examples.labels), examples.x, seeds_of(examples))
    np.testing.assert_array_equal(state.adversarial, expected)
    np.testing.assert_array_equal(state.fooled, np.argmax(network(expected), 1) != network.y)
    assert 0 < state.fooled.numpy().sum() < 8


def test_an_attack_on_the_margin_lowers_the_margin_more_than_one_on_the_cross_entropy(network):
    examples = examples_of(network)
    found = {
        loss: run(LastIterate(PGD(Linf(0.004), steps=20), loss), network, examples, seeds_of(examples))
        for loss in ("ce", "margin")
    }
    margins = {loss: np.mean(LOSSES["margin"](network(s.adversarial), examples)) for loss, s in found.items()}
    assert margins["margin"] > margins["ce"]


def test_transfer_climbs_on_the_source_and_is_judged_on_the_target(network):
    examples, other = examples_of(network), mlp(8, 8, 16, 10, 1)
    state = run(Transfer(other, LastIterate(FGSM(Linf(0.02)))), network, examples, seeds_of(examples))
    expected = run(LastIterate(FGSM(Linf(0.02))), other, examples, seeds_of(examples)).adversarial
    np.testing.assert_array_equal(state.adversarial, expected)
    np.testing.assert_array_equal(state.fooled, np.argmax(network(expected), 1) != network.y)


def test_what_is_not_finite_is_not_fooled():
    logits = tf.constant([[0.0, 1.0], [1.0, 0.0], [np.nan, 1.0], [0.0, np.inf]])
    np.testing.assert_array_equal(misclassified(logits, tf.zeros(4, tf.int32)), [True, False, False, False])


def test_pick_chooses_rows():
    first, second = tf.ones([2, 3, 1, 1]), tf.zeros([2, 3, 1, 1])
    np.testing.assert_array_equal(pick(tf.constant([True, False]), first, second)[:, 0, 0, 0], [1, 0])


def test_climb_gives_each_image_its_own_gradient():
    x = tf.random.normal([3, 2, 2, 1])
    other, value, gradient = climb(lambda z: (tf.reduce_sum(z**2, [1, 2, 3]), "other"), x)
    assert other == "other"
    np.testing.assert_allclose(value, np.sum(x.numpy() ** 2, (1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-6)


def test_a_loss_without_gradient_climbs_nowhere():
    x = tf.ones([1, 2, 2, 1])
    np.testing.assert_array_equal(climb(lambda z: (tf.constant([1.0]), None), x)[2], 0)


def test_senseless_settings_are_refused():
    attack = PGD(Linf(8 / 255))
    with pytest.raises(UserError, match="Did you mean 'margin'"):
        LastIterate(attack, loss="margins")
    with pytest.raises(UserError, match="restarts"):
        LastIterate(attack, restarts=0)
    assert LastIterate(attack).restarts == 1
