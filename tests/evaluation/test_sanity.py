"""Known-broken defences are recognised, and a sound network is not slandered."""

import gc
import json
import weakref

import numpy as np
import pytest
import tensorflow as tf
from golden import mlp

from awp_tf.attacks import PGD, LastIterate, Square
from awp_tf.attacks.autoattack import Cascade
from awp_tf.data import Split
from awp_tf.evaluation.sanity import Sanity, black_box, verification
from awp_tf.evaluation.state import CLEAN_ERROR, ROBUST, EvaluationState
from awp_tf.networks.classifier import Classifier
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
    "statistics of the batch": (lambda z: z - tf.reduce_mean(z, 0, keepdims=True), "independent"),
}


def sanity_of(network, wrap, threat=Linf(0.005), **settings):
    predict = lambda x: wrap(network(x))  # noqa: E731
    labels = tf.argmax(predict(network.x), 1).numpy().astype(np.int32)
    classifier = Classifier("mlp", predict, (8, 8, 3), 10, "")
    return Sanity(classifier, Split(network.x.numpy(), labels), threat, **{"batch_size": 16, **settings})


def looked_at(network, wrap, threat=Linf(0.005), **settings):
    sanity = sanity_of(network, wrap, threat, **settings)
    measured = json.loads(json.dumps({name: look() for name, look in sanity.measurements().items()}))
    checks, curve = sanity.conclude(measured)
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


def test_steps_that_lead_astray_are_recognised(network):
    sanity = sanity_of(network, lambda z: z)
    measured = {name: look() for name, look in sanity.measurements().items()}
    measured["PGD-10 at 0.005"], measured["PGD-50 at 0.005"] = list(range(30)), list(range(28))
    assert sanity.conclude(measured)[0][4] == ("more steps", False, "PGD-10 25.0 %, PGD-50 30.0 %")
    measured["PGD-50 at 0.005"] = list(range(29))  # one image is chance
    assert sanity.conclude(measured)[0][4].passed


def test_an_evaluation_weaker_than_plain_pgd_is_recognised(network):
    sanity = sanity_of(network, lambda z: z)
    name = "PGD-20 at 0.005"
    measured = {name: sanity.measurements()[name]()}
    fooled = np.isin(np.arange(40), measured[name])
    assert 10 < fooled.sum() < 40
    assert sanity.strength(measured, ~fooled).passed
    weak = sanity.strength(measured, np.ones(40, bool))
    assert not weak.passed
    assert f"fooled {fooled.sum()} of 40 images" in weak.detail


def test_batches_change_nothing(network):
    small, large = (looked_at(network, lambda z: z, batch_size=size) for size in (7, 40))
    assert small == large


def test_noise_is_expected_where_it_is_declared(network):
    checks, _ = looked_at(network, BROKEN["noise"][0], randomised=True)
    assert checks["deterministic"].passed
    assert checks["independent"].passed


WHITE, BLACK = LastIterate(PGD(Linf(8 / 255))), Square(Linf(8 / 255))


def state_of(*fooled_by):
    return EvaluationState(np.zeros((len(fooled_by[0]), 2), int), np.array(fooled_by))


def test_a_black_box_that_fools_more_is_a_sign():
    cascade = {"both": Cascade({"pgd": WHITE, "square": BLACK})}
    masked = [1] * 10 + [0] * 10 + [ROBUST] * 480
    assert not black_box(cascade, state_of(masked)).passed
    assert "10 images (2.00 %)" in black_box(cascade, state_of(masked)).detail
    assert black_box(cascade, state_of([1] + [0] * 19 + [ROBUST] * 480)).passed
    alone = {"pgd": Cascade({"pgd": WHITE}), "square": Cascade({"square": BLACK})}
    assert not black_box(alone, state_of([ROBUST] * 100, [0] * 100)).passed
    assert black_box(alone, state_of([0] * 100, [0] * 50 + [ROBUST] * 50)).passed


def test_a_black_box_that_came_first_proves_nothing():
    first = Cascade({"square": BLACK, "pgd": WHITE})
    assert black_box({"both": first}, state_of([0] * 100)).passed
    assert black_box({"both": first, "spsa": Cascade({"spsa": BLACK})}, state_of([0] * 100, [0] * 100)).passed


def test_rejected_images_are_a_sign():
    state = state_of([0, 0, CLEAN_ERROR, ROBUST])
    assert verification(state, randomised=False).passed
    assert "2 adversarial images" in verification(state, randomised=False).detail
    state.rejected[0, 0] = True  # and fooled again later
    assert verification(state, randomised=False).passed
    state.rejected[0, 3] = True
    assert not verification(state, randomised=False).passed
    assert verification(state, randomised=True).passed


def test_what_was_looked_at_is_not_kept_alive(network):
    sanity = sanity_of(network, lambda z: z)
    sanity.fooled(2, 0.005)
    gone = weakref.ref(sanity)
    del sanity
    gc.collect()
    assert gone() is None
