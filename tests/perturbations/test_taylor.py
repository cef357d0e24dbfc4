"""Randomised AT: the antithetic pair, the exact terms, single noise, and what each promises of the other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_network, tiny_trainer

from awp_tf.attacks import Clean
from awp_tf.functional import Recorder, require_smooth
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT
from awp_tf.networks.layers import BatchNorm
from awp_tf.noise import make_seed
from awp_tf.perturbations import AWP, RAT, SAM, Identity
from awp_tf.perturbations.taylor import hessian

BEGUN, SEED = tf.constant(1.0, tf.float64), make_seed(5)


def smooth_network(batch_norm=None):
    """Convolution, perhaps BatchNorm, softplus, dense."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="conv1")(inputs)
    x = batch_norm(name="bn1")(x) if batch_norm else x
    x = keras.layers.Flatten()(keras.layers.Activation("softplus")(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="linear")(x))


def loss_of(network):
    """(The loss of each example as a function of the weights, the weights)."""
    x, y = tiny_batch(6, "float64")
    state = [v.value for v in network.non_trainable_variables]

    def loss(weights):
        return cross_entropy(network.stateless_call(weights, state, x, training=True)[0], y)

    return loss, [tf.convert_to_tensor(v.value) for v in network.trainable_variables]


def terms(rat, loss, weights):
    """(First-order, second-order) of each example."""
    coefficients = [(1.0, 0.0), (0.0, 1.0)]
    here = loss(weights)
    kinds = [RAT(rat.sigma, first, second, rat.estimator) for first, second in coefficients]
    return [(kind.loss(loss, weights, SEED, BEGUN) - here).numpy() for kind in kinds]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batch_norm", [None, BatchNorm], ids=["plain", "our BatchNorm"])
def test_the_antithetic_terms_are_the_exact_ones(batch_norm):
    loss, weights = loss_of(smooth_network(batch_norm))
    exact = terms(RAT(1e-2, estimator="hessian"), loss, weights)
    pair = terms(RAT(1e-2), loss, weights)
    assert min(np.abs(part).max() for part in exact) > 1e-6
    for one, other in zip(exact, pair, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=5e-3)  # what is left out is of the next orders in sigma


@pytest.mark.usefixtures("float64")
def test_the_antithetic_second_term_equals_the_hessian_vector_product_without_batch_norm():
    loss, weights = loss_of(smooth_network())
    for sigma, tolerance in ((1e-2, 1e-6), (1e-3, 1e-9)):
        exact, pair = (terms(RAT(sigma, estimator=kind), loss, weights)[1] for kind in ("hessian", "antithetic"))
        np.testing.assert_allclose(exact, pair, atol=tolerance)
        assert np.abs(exact).max() > 10 * tolerance


@pytest.mark.usefixtures("float64")
def test_the_gradient_of_the_exact_terms_is_that_of_finite_differences():
    loss, weights = loss_of(smooth_network(BatchNorm))
    rat = RAT(0.1, first=0.3, second=0.7, estimator="hessian")
    noises = [rat._noise(w, SEED.fold(layer)) for layer, w in enumerate(weights)]
    value = lambda at: tf.reduce_sum(hessian(rat, loss, at, noises))  # noqa: E731
    with tf.GradientTape() as tape:
        tape.watch(weights)
        at = value(weights)
    gradient = tape.gradient(at, weights)
    rng, step = np.random.default_rng(0), 1e-5
    direction = [tf.constant(rng.normal(0, 1, w.shape)) for w in weights]
    ends = [float(value([w + sign * step * d for w, d in zip(weights, direction, strict=True)])) for sign in (1, -1)]
    slope = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradient, direction, strict=True))
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivatives_of_our_batch_norm_are_those_of_finite_differences(dtype):
    """In float32 it is TensorFlow's kernel, in float64 the formula; Keras' own layer fails this."""

    def disagreement(layer):
        x = tf.constant(np.random.default_rng(0).normal(0, 1, (4, 3, 3, 2)), dtype)
        layer.build(x.shape)
        slope = lambda z: _gradient(lambda at: tf.reduce_sum(tf.nn.softplus(layer(at, training=True)) ** 2), z)  # noqa: E731
        u = tf.constant(np.random.default_rng(1).normal(0, 1, x.shape), dtype)
        exact = _gradient(tf.function(lambda z: tf.reduce_sum(slope(z) * u)), x)
        step = 1e-2 if dtype == "float32" else 1e-5
        difference = (slope(x + step * u) - slope(x - step * u)) / (2 * step)
        return float(tf.reduce_max(tf.abs(exact - difference)) / tf.reduce_max(tf.abs(difference)))

    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    tolerance = 1e-2 if dtype == "float32" else 1e-7
    assert disagreement(BatchNorm()) < tolerance
    if dtype == "float64":
        assert disagreement(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)) > 0.05


def _gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


@pytest.mark.usefixtures("float64")
def test_coefficients_of_one_take_the_larger_loss_of_the_pair_and_no_first_term_the_mean():
    loss, weights = loss_of(smooth_network())
    noises = [RAT(0.5)._noise(w, SEED.fold(layer)) for layer, w in enumerate(weights)]
    there, back = (loss([w + sign * u for w, u in zip(weights, noises, strict=True)]).numpy() for sign in (1, -1))
    values = {first: RAT(0.5, first=first).loss(loss, weights, SEED, BEGUN) for first in (0.0, 1.0)}
    np.testing.assert_allclose(values[1.0], np.maximum(there, back), rtol=1e-12)
    np.testing.assert_allclose(values[0.0], (there + back) / 2, rtol=1e-12)
    single = RAT(0.5, estimator="single").loss(loss, weights, SEED, BEGUN)
    np.testing.assert_allclose(single, there, rtol=1e-12)


def test_noise_has_the_length_sigma_of_its_kernel_and_leaves_biases_alone():
    kernel, bias = tf.random.stateless_normal([64, 128], [0, 1]), tf.ones([128])
    noise = RAT(0.2)._noise(kernel, SEED)
    assert float(tf.norm(noise) / tf.norm(kernel)) == pytest.approx(0.2, rel=0.03)
    assert not RAT(0.2)._noise(bias, SEED).numpy().any()


@pytest.mark.parametrize(
    ("estimator", "around"),
    [
        ("antithetic", Identity()),
        ("antithetic", SAM(0.05)),
        ("single", AWP(0.01)),
        ("single", SAM(0.05)),
        ("hessian", AWP(0.01)),
    ],
    ids=repr,
)
def test_before_it_begins_it_is_plain_training_and_then_it_is_not(estimator, around):
    trained = {}
    for perturb_from in (0.0, 5.0):
        for kind in (RAT(0.1, estimator=estimator, around=around), around):
            network = smooth_network()
            settings = {"method": AT(), "attack": Clean(), "perturbation": kind, "perturb_from": perturb_from}
            tiny_trainer(network, **settings).train_step(tiny_batch(8))
            trained[perturb_from, kind] = np.concatenate([w.ravel() for w in network.get_weights()])
    (began, without), (later, plain) = (
        [weights for (begin, _), weights in trained.items() if begin == perturb_from] for perturb_from in (0.0, 5.0)
    )
    np.testing.assert_allclose(later, plain, rtol=0, atol=1e-7)  # a mean of equal numbers rounds
    assert np.abs(began - without).max() > 1e-4


@pytest.mark.parametrize(
    ("perturbation", "passes"),
    [(RAT(), 2), (RAT(second=0.5), 3), (RAT(estimator="single"), 1), (RAT(around=AWP(0.01)), 3), (AWP(0.01), 2)],
    ids=repr,
)
def test_it_takes_as_many_passes_of_the_outer_loss_as_documented(perturbation, passes, monkeypatch):
    call, counted = Recorder.__call__, []
    monkeypatch.setattr(Recorder, "__call__", lambda self, x: counted.append(1) or call(self, x))
    trainer = tiny_trainer(method=AT(), attack=Clean(), perturbation=perturbation)
    trainer.train_step(tiny_batch(4))
    assert len(counted) == passes


@pytest.mark.parametrize("perturbation", [RAT(0.1), RAT(0.1, around=AWP(0.01)), SAM(0.1)], ids=repr)
def test_xla_takes_the_same_step(perturbation):
    trained = []
    for xla in (False, True):
        network = smooth_network(BatchNorm)
        tiny_trainer(network, method=AT(), attack=Clean(), perturbation=perturbation, xla=xla).train_step(tiny_batch(8))
        trained.append(np.concatenate([w.ravel() for w in network.get_weights()]))
    np.testing.assert_allclose(*trained, atol=1e-5)


def test_what_does_not_fit_is_said_in_a_line():
    with pytest.raises(UserError, match=r"RAT.estimator: expected .*antithetic.*, received 'taylor'"):
        RAT(estimator="taylor")
    for around in (None, AWP, RAT()):
        with pytest.raises(UserError, match=r"RAT.around: expected a perturbation such as @AWP\(\)"):
            RAT(around=around)
    with pytest.raises(UserError, match=r'expected smooth layers for the estimator "hessian"'):
        tiny_trainer(tiny_network(), perturbation=RAT(estimator="hessian"))
    for kind in ("leaky_relu", "relu6", "selu", "hard_silu"):
        network = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, kind)])
        with pytest.raises(UserError, match="expected smooth layers"):
            require_smooth(network)
    for layer in (keras.layers.LayerNormalization(), keras.layers.GroupNormalization(1), keras.layers.PReLU()):
        with pytest.raises(UserError, match="expected smooth layers"):
            require_smooth(keras.Sequential([keras.Input((8, 8, 1)), layer, keras.layers.Flatten()]))
    with pytest.raises(UserError, match=r"received bn1 \(BatchNormalization\)"):
        tiny_trainer(smooth_network(keras.layers.BatchNormalization), perturbation=RAT(estimator="hessian"))
