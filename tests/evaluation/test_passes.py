"""The adversarial loss as a function of the weights."""

import keras
import numpy as np
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network, tiny_split
from test_trainer import bn_network

from awp_tf.attacks import PGD, Clean, ZeroStart, untargeted
from awp_tf.data import ordered
from awp_tf.evaluation.accuracy import Measurement, craft, evaluate
from awp_tf.evaluation.passes import Passes, random_direction, shift
from awp_tf.functional import predictor
from awp_tf.losses import cross_entropy
from awp_tf.networks import preact_resnet18
from awp_tf.noise import make_seed
from awp_tf.threats import Linf

ATTACK = PGD(Linf(0.1), steps=3)
BATCHES = list(ordered(tiny_split(40), 16, "float32"))


def test_at_the_weights_themselves_it_is_what_evaluation_finds():
    network = tiny_network()
    height = Passes(network, ATTACK, seed=0).height(Passes(network, ATTACK, seed=0).weights, BATCHES)
    split, measurement = tiny_split(40), Measurement(ATTACK, examples=None, batch_size=16)
    assert height.accuracy == evaluate(network, measurement.batches(split, "float32"), {"robust": ATTACK})["robust"]


def test_the_loss_is_the_mean_cross_entropy_of_the_attacks_images():
    network = tiny_network()
    passes = Passes(network, ATTACK, seed=0)
    first = BATCHES[:1]
    x, y = first[0]
    # craft() draws the noise of its own seed; the same images come out of an attack without noise.
    quiet = PGD(Linf(0.1), steps=3, start=lambda threat, x, seed: tf.zeros_like(x))
    expected = np.mean(cross_entropy(network(craft(network, quiet, x, y), training=False), y))
    found = Passes(network, quiet, seed=0)
    np.testing.assert_allclose(found.height(passes.weights, first).loss, expected, rtol=1e-6)


def test_images_are_attacked_anew_at_every_point():
    network = tiny_network()
    passes = Passes(network, ATTACK, seed=0)
    there = shift(passes.weights, [random_direction(passes.weights, make_seed(1))], [0.5])
    fixed = passes.without_attack().height(there, passes.craft(BATCHES))
    assert passes.height(there, BATCHES).loss > fixed.loss
    at_start = passes.without_attack().height(passes.weights, passes.craft(BATCHES))
    np.testing.assert_allclose(at_start.loss, passes.height(passes.weights, BATCHES).loss, rtol=1e-6)


def test_a_quadratic_loss_gives_the_exact_parabola():
    """logits = x W: sum of squares of x (W + alpha D), written out with NumPy."""
    inputs = keras.Input((2, 2, 1), dtype="float64")
    flat = keras.layers.Flatten(dtype="float64")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, dtype="float64")(flat))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(10, 2, 2, 1)), np.zeros(10, np.int32)
    passes = Passes(network, Clean(), seed=0, loss=lambda z, labels: tf.reduce_sum(z**2, axis=-1))
    direction = random_direction(passes.weights, make_seed(0))
    alphas = np.linspace(-1, 1, 9)
    found = [passes.height(shift(passes.weights, [direction], [a]), [(x, y)]).loss for a in alphas]
    w, d = x.reshape(10, 4) @ passes.weights[0].numpy(), x.reshape(10, 4) @ direction[0].numpy()
    expected = [(w**2).sum(1).mean() + 2 * a * (w * d).sum(1).mean() + a**2 * (d**2).sum(1).mean() for a in alphas]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_one_trace_for_all_points_and_no_variable_is_written():
    network = preact_resnet18(shape=(8, 8, 1), classes=4, width=2)
    before = preact_resnet18(shape=(8, 8, 1), classes=4, width=2)
    before.set_weights(network.get_weights())
    passes = Passes(network, ATTACK, seed=0)
    direction = random_direction(passes.weights, make_seed(0))
    found = [passes.height(shift(passes.weights, [direction], [alpha]), BATCHES).loss for alpha in (-1.0, 0.0, 1.0)]
    passes.gradient(passes.weights, BATCHES)
    passes.craft(BATCHES)
    assert len(set(found)) == 3
    assert passes._measure.experimental_get_tracing_count() == 1  # 16, 16 and 8 images
    assert_same_weights(network, before)


def test_the_gradient_is_that_of_the_loss():
    network = tiny_network()
    passes = Passes(network, Clean(), seed=0)
    gradient = passes.gradient(passes.weights, BATCHES)
    direction = random_direction(passes.weights, make_seed(0))
    step = 1e-2
    up, down = (passes.height(shift(passes.weights, [direction], [s]), BATCHES).loss for s in (step, -step))
    slope = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradient, direction, strict=True)) / 40
    np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=2e-2)


def test_batch_norm_is_that_of_evaluation_in_all_passes():
    network = bn_network()
    for seed in range(3):
        network(tiny_batch(16, seed=seed)[0], training=True)
    quiet = PGD(Linf(0.1), steps=3, start=ZeroStart())
    passes, predict = Passes(network, quiet, seed=0), predictor(network)
    x, y = (tf.concat(parts, axis=0) for parts in zip(*BATCHES, strict=True))
    x_adv = quiet(untargeted(predict, y), x, make_seed(0))
    np.testing.assert_allclose(np.concatenate([z for z, _ in passes.craft(BATCHES)]), x_adv, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(cross_entropy(network(x_adv, training=False), y))
    height = passes.height(passes.weights, BATCHES)
    np.testing.assert_allclose(height.loss, loss / len(y), rtol=1e-5)
    assert height.accuracy == np.mean((np.argmax(predict(x), 1) == y) & (np.argmax(predict(x_adv), 1) == y))
    for found, expected in zip(
        passes.gradient(passes.weights, BATCHES), tape.gradient(loss, network.trainable_variables), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
