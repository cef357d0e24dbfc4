import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.networks.convolution import conv
from awp_tf.networks.layers import BatchNorm, Normalize, _fused_stored, _kernel


@pytest.fixture
def x(rng):
    return rng.normal(2, 3, (4, 5, 5, 3))


def made(dtype, **settings):
    layer = BatchNorm(dtype=dtype, **settings)
    layer.build((None, 5, 5, 3))
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([0.1, -0.2, 0.3])
    return layer


def formula(x):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * [0.5, 1.0, 2.0] + [0.1, -0.2, 0.3]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("mixed_bfloat16", 0.05)])
def test_training_mode_is_the_formula_of_pytorch(x, dtype, tolerance):
    layer = made(dtype)
    y = layer(tf.constant(x), training=True)
    np.testing.assert_allclose(tf.cast(y, tf.float64), formula(x), atol=tolerance)
    n = x.size / 3
    np.testing.assert_allclose(layer.moving_mean, 0.1 * x.mean((0, 1, 2)), rtol=max(tolerance, 1e-6))
    unbiased = x.var((0, 1, 2)) * n / (n - 1)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * unbiased, rtol=max(tolerance, 1e-6))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_evaluation_mode_uses_the_running_statistics_and_keeps_them(x, dtype, tolerance):
    layer = made(dtype)
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    layer.moving_variance.assign([4.0, 5.0, 6.0])
    expected = (x - [1, 2, 3]) / np.sqrt(np.array([4, 5, 6]) + 1e-5) * [0.5, 1.0, 2.0] + [0.1, -0.2, 0.3]
    np.testing.assert_allclose(layer(tf.constant(x), training=False), expected, atol=tolerance)
    np.testing.assert_array_equal(layer.moving_mean, [1.0, 2.0, 3.0])


def test_fused_kernel_and_formula_have_the_same_gradients(x):
    gradients = {}
    for dtype in ("float32", "float64"):
        layer, images = made(dtype), tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = tf.reduce_sum(tf.sin(layer(images, training=True)))
        gradients[dtype] = tape.gradient(value, [images, layer.gamma.value, layer.beta.value])
    for fused, composed in zip(*gradients.values(), strict=True):
        np.testing.assert_allclose(fused, composed, atol=1e-4)


def test_the_gradient_that_gpus_take_in_16_bits_is_that_of_the_kernel(x):
    images = tf.constant(x, tf.bfloat16)
    parts = [tf.constant(value, tf.float32) for value in ([0.5, 1, 2], [0, 1, -1], [1, 2, 3], [4, 5, 6])]
    found = []
    for normalize in (_kernel, _fused_stored):
        with tf.GradientTape() as tape:
            tape.watch([images, *parts[:2]])
            value = tf.reduce_sum(tf.sin(tf.cast(normalize(images, *parts, 1e-5), tf.float32)))
        found.append(tape.gradient(value, [images, *parts[:2]]))
    for kernel, own in zip(*found, strict=True):
        assert kernel.dtype == own.dtype
        np.testing.assert_allclose(tf.cast(kernel, tf.float32), tf.cast(own, tf.float32), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float32", 2e-2)])
def test_second_derivatives_equal_a_difference_of_gradients(x, dtype, tolerance, rng):
    layer = made(dtype)
    images, direction = tf.constant(x, dtype), tf.constant(rng.normal(0, 1, x.shape), dtype)

    def gradient(at):
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = tf.reduce_sum(tf.sin(layer(at, training=True)) * direction)
        return tape.gradient(value, at)

    with tf.GradientTape() as outer:
        outer.watch(images)
        slope = tf.reduce_sum(gradient(images) * direction)
    product = outer.gradient(slope, images)
    h = 1e-5 if dtype == "float64" else 1e-2
    difference = (gradient(images + h * direction) - gradient(images - h * direction)) / (2 * h)
    np.testing.assert_allclose(product, difference, atol=tolerance * np.abs(product).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("mixed_bfloat16", 0.05)])
def test_gradients_in_evaluation_mode_are_those_of_the_formula(x, dtype, tolerance, rng):
    layer = made(dtype)
    layer.moving_mean.assign([0.5, -1.0, 2.0])
    layer.moving_variance.assign([4.0, 1.0, 0.25])
    weight = rng.normal(size=x.shape)
    inputs = tf.constant(x, layer.compute_dtype)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(inputs)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = tf.reduce_sum(tf.cast(layer(inputs), tf.float64) * weight)
        parameters = [inputs, layer.gamma.value, layer.beta.value]
        dx, dgamma, dbeta = tape.gradient(value, parameters)
        square = tf.reduce_sum(tf.cast(dx, tf.float64) ** 2)
    inverse = 1 / np.sqrt(np.array([4.0, 1.0, 0.25]) + 1e-5)
    gamma, mean = np.array([0.5, 1.0, 2.0]), np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(tf.cast(dx, tf.float64), weight * gamma * inverse, atol=tolerance * 10)
    np.testing.assert_allclose(dgamma, (weight * (x - mean) * inverse).sum((0, 1, 2)), rtol=tolerance * 10)
    np.testing.assert_allclose(dbeta, weight.sum((0, 1, 2)), rtol=tolerance * 10)
    if dtype != "mixed_bfloat16":
        second = 2 * gamma * (weight**2 * inverse**2).sum((0, 1, 2))
        np.testing.assert_allclose(outer.gradient(square, parameters[1]), second, rtol=tolerance * 10)


def test_normalize_stays_in_float32_under_a_16_bit_policy():
    layer = Normalize([0.5], [0.25], dtype="float32")
    x = tf.constant([[[[0.998]]], [[[1.0]]]])
    assert len(np.unique(layer(x))) == 2


def test_normalize_without_statistics_changes_nothing(x):
    np.testing.assert_array_equal(Normalize(None, None, dtype="float64")(x), x)


def test_strided_convolution_pads_both_sides():
    inputs = keras.Input((6, 6, 1))
    network = keras.Model(inputs, conv(inputs, 1, stride=2, initializer=keras.initializers.Ones(), name="c"))
    y = network(np.ones((1, 6, 6, 1), "float32")).numpy()[0, :, :, 0]
    # PyTorch's padding=1 cuts the first row and column short; Keras' "same" would cut the last ones.
    np.testing.assert_array_equal(y, [[4, 6, 6], [6, 9, 9], [6, 9, 9]])


def test_layers_describe_themselves():
    for layer in (BatchNorm(momentum=0.8, synchronized=True), Normalize([0.1], [0.2])):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("settings", "channels", "message"),
    [
        (((0.5, 0.4, 0.3), None), 1, r"mean: expected one number, or one for each of the 1 channels .* \(gin/data"),
        ((None, (0.5, 0.4, 0.3)), 1, r"std: expected one number, or one for each of the 1 channels"),
        (((125.3, 123.0, 113.9), None), 3, r"mean: expected that of pixels in \[0, 1\], received .*; divide by 255"),
        ((None, (63.0,)), 3, r"std: expected that of pixels in \[0, 1\]"),
        (((0.5, 0.4), (0.1,)), 3, r"mean: expected one number, or one for each of the 3 channels"),
        (((0.5,), (0.0,)), 3, r"std: expected numbers > 0"),
        (((0.5,), (0.1, -0.1, 0.1)), 3, r"std: expected numbers > 0"),
    ],
)
def test_statistics_that_do_not_fit_the_channels_never_broadcast(settings, channels, message):
    with pytest.raises(UserError, match=message):
        Normalize(*settings)(np.zeros((2, 4, 4, channels), np.float32))


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
def test_a_frozen_layer_uses_its_stored_statistics_in_training_and_keeps_them(x, dtype):
    layer, x = made(dtype), tf.constant(x)
    layer.moving_mean.assign([1.0, 2.0, 3.0])
    layer.trainable = False
    before = [np.array(w) for w in layer.weights]
    np.testing.assert_array_equal(*(tf.cast(layer(x, training=mode), "float64") for mode in (True, False)))
    for now, was in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(now, was)
    layer.trainable = True
    assert np.abs(tf.cast(layer(x, training=True) - layer(x, training=False), "float64")).max() > 0.1
