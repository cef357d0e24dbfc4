"""Known-broken defences are recognised, and a sound network is not slandered."""

import numpy as np
import pytest
import tensorflow as tf
from golden import mlp

from awp_tf.attacks import PGD, Once, Square
from awp_tf.attacks.autoattack import Cascade
from awp_tf.robustness import Classifier
from awp_tf.robustness.ledger import CLEAN_ERROR, ROBUST, Ledger
from awp_tf.robustness.sanity import Sanity, black_box, unbounded, verified
from awp_tf.threats import L2, Linf


@pytest.fixture(scope="module")
def network():
    return mlp(40, 8, 16, 10, 0, "float32")


@tf.custom_gradient
def astray(z):
    return z, lambda upstream: -upstream


BROKEN = {
    "probabilities": (tf.nn.softmax, "logits"),
    "noise": (lambda z: z + 0.1 * tf.random.normal(tf.shape(z)), "deterministic"),
    "rounded": (tf.round, "gradients"),
    "rounded, unbounded": (tf.round, "unbounded attack"),
    "constant": (lambda z: 0 * z, "gradients"),
    "wrong gradients": (astray, "unbounded attack"),
}


def looked_at(network, wrap, threat=Linf(0.005), *, randomised=False):
    predict = lambda x: wrap(network(x))  # noqa: E731
    labels = tf.argmax(predict(network.x), 1).numpy().astype(np.int32)
    classifier = Classifier("mlp", predict, (8, 8, 3), 10, "")
    checks, curve = Sanity(classifier, network.x, labels, threat, 0).checks(randomised=randomised)
    return {check.name: check for check in checks}, curve


@pytest.mark.parametrize("threat", [Linf(0.005), L2(0.05)], ids=repr)
def test_a_sound_network_passes(network, threat):
    checks, curve = looked_at(network, lambda z: z, threat)
    assert [check for check in checks.values() if not check.passed] == []
    assert curve.epsilons[0] == 0
    assert curve.accuracies[0] == 1
    assert curve.accuracies[-1] == 0
    assert curve.epsilons[-1] == (1 if threat == Linf(0.005) else pytest.approx(192**0.5))
    assert (np.diff(curve.accuracies) <= 0.05).all()


@pytest.mark.parametrize("defence", BROKEN)
def test_a_broken_defence_is_recognised(network, defence):
    wrap, name = BROKEN[defence]
    assert not looked_at(network, wrap)[0][name].passed


def test_steps_that_lead_astray_are_recognised(network, monkeypatch):
    accuracy = {10: 0.30, 50: 0.35}
    monkeypatch.setattr(Sanity, "_accuracy", lambda self, steps: accuracy[steps])
    assert looked_at(network, lambda z: z)[0]["more steps"] == ("more steps", False, "PGD-10 30.0 %, PGD-50 35.0 %")
    accuracy[50] = 0.30
    assert looked_at(network, lambda z: z)[0]["more steps"].passed


def test_noise_is_expected_where_it_is_declared(network):
    assert looked_at(network, BROKEN["noise"][0], randomised=True)[0]["deterministic"].passed


WHITE, BLACK = Once(PGD()), Square()


def ledger_of(*fell):
    return Ledger(np.zeros((len(fell[0]), 2), int), np.array(fell))


def test_a_black_box_that_fools_more_is_a_sign():
    cascade = {"both": Cascade({"pgd": WHITE, "square": BLACK})}
    masked = [1] * 10 + [0] * 10 + [ROBUST] * 480
    assert not black_box(cascade, ledger_of(masked)).passed
    assert "10 images (2.00 %)" in black_box(cascade, ledger_of(masked)).detail
    assert black_box(cascade, ledger_of([1] + [0] * 19 + [ROBUST] * 480)).passed
    alone = {"pgd": Cascade({"pgd": WHITE}), "square": Cascade({"square": BLACK})}
    assert not black_box(alone, ledger_of([ROBUST] * 100, [0] * 100)).passed
    assert black_box(alone, ledger_of([0] * 100, [0] * 50 + [ROBUST] * 50)).passed


def test_a_black_box_that_came_first_proves_nothing():
    cascade = {"both": Cascade({"square": BLACK, "pgd": WHITE})}
    check = black_box(cascade, ledger_of([0] * 100))
    assert check.passed
    assert "not looked at" in check.detail


def test_rejected_images_are_a_sign():
    ledger = ledger_of([0, 0, CLEAN_ERROR, ROBUST])
    assert verified(ledger) == (
        "verification",
        True,
        "2 adversarial images read back: in the ball, in the box, misclassified",
    )
    ledger.rejected = {"pgd": 3}
    assert not verified(ledger).passed


def test_a_few_left_by_the_unbounded_attack_are_within_the_slack(network):
    curve = looked_at(network, lambda z: z)[1]
    assert unbounded(curve._replace(accuracies=[1.0, 0.01])).passed
    assert not unbounded(curve._replace(accuracies=[1.0, 0.02])).passed
