"""Fast forms of convolutions: the same numbers, chosen where they are known to be faster."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.functional import bind, read
from awp_tf.networks import convolution, preact_resnet18
from awp_tf.networks.convolution import Conv2D, as_keras_does, at_points, columns, conv, winograd

FORMS = {"winograd": lambda x, kernel: winograd(x, at_points(kernel)), "columns": columns}


def direct(x, kernel):
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def inputs(height, width, channels, filters, dtype="float64"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, height, width, channels)).clip(0)
    kernel = rng.normal(size=(3, 3, channels, filters)) / np.sqrt(9 * channels)
    return tf.constant(x, dtype), tf.constant(kernel, dtype)


def with_gradients(form, x, kernel):
    """Outputs, gradients, and what the gradient of a gradient is: RAT and FS-DGPM take second derivatives."""
    with tf.GradientTape(persistent=True) as outer:
        outer.watch((x, kernel))
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = form(x, kernel)
            loss = tf.reduce_sum(tf.sin(y))
        first = tape.gradient(loss, (x, kernel))
        total = tf.add_n([tf.reduce_sum(g**2) for g in first])
    return [y, *first, *outer.gradient(total, (x, kernel))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (4, 12), (16, 4)])
def test_a_form_has_the_numbers_and_derivatives_of_the_convolution(form, height, width):
    x, kernel = inputs(height, width, 5, 3)
    for found, expected in zip(with_gradients(FORMS[form], x, kernel), with_gradients(direct, x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_points_of_winograd_halve_the_error_of_the_usual_ones_in_float32(monkeypatch):
    x, kernel = inputs(8, 8, 512, 64)

    def error():
        found = winograd(tf.cast(x, tf.float32), at_points(tf.cast(kernel, tf.float32)))
        return float(tf.reduce_max(tf.abs(tf.cast(found, tf.float64) - direct(x, kernel))))

    ours = error()
    monkeypatch.setattr(convolution, "_POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    convolution._transforms.cache_clear()
    try:
        assert ours < 0.5 * error()
    finally:
        convolution._transforms.cache_clear()


@pytest.mark.parametrize("form", FORMS)
def test_no_images_give_no_outputs(form):
    x, kernel = inputs(4, 4, 16, 3)
    assert FORMS[form](x[:0], kernel).shape == (0, 4, 4, 3)


def nodes(size, dtype, channels=16, **settings):
    """Kinds of the operations of a layer on images of a size."""
    layer = Conv2D(8, 3, padding="same", data_format="channels_last", use_bias=False, dtype=dtype, **settings)
    layer.build((None, *size, channels))
    spec = tf.TensorSpec([2, *size, channels], layer.compute_dtype)
    return {op.type for op in tf.function(layer, autograph=False).get_concrete_function(spec).graph.get_operations()}


FAST = [((4, 4), "float32"), ((8, 8), "float32"), ((8, 8), "float64"), ((4, 4), "mixed_bfloat16")]
DIRECT = [((16, 16), "float32"), ((6, 6), "float32"), ((8, 8), "mixed_bfloat16")]


@pytest.mark.parametrize(("size", "dtype"), FAST)
def test_small_images_take_a_matrix_product(size, dtype):
    assert "Conv2D" not in nodes(size, dtype)
    with as_keras_does():
        assert "Conv2D" in nodes(size, dtype)


@pytest.mark.parametrize(("size", "dtype"), DIRECT)
def test_others_are_as_keras_has_them(size, dtype):
    assert "Conv2D" in nodes(size, dtype)


@pytest.mark.parametrize("settings", [{"strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"channels": 8}])
def test_so_are_strides_and_whatever_else_a_form_does_not_know(settings):
    assert not {"MatMul", "BatchMatMulV2"} & nodes((8, 8), "float32", **settings)


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
def test_a_network_is_the_same_with_kernels_that_are_made_ready(dtype):
    floatx = "float64" if dtype == "float64" else "float32"
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(dtype)
    try:
        network = preact_resnet18(shape=(32, 32, 3), classes=4, width=4)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    x = tf.constant(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), floatx)
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)

    @tf.function(autograph=False)
    def logits(weights):
        return bind(network, weights, state, training=False)(x)

    moved = [w + 0.01 for w in weights]
    with as_keras_does():
        expected = [network.stateless_call(w, state, x, training=False)[0] for w in (weights, moved)]
    tolerance = {"float64": 1e-12, "float32": 1e-4, "mixed_bfloat16": 5e-2}[dtype]
    for found, wanted in zip([logits(weights), logits(moved)], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_kernels_are_made_ready_outside_the_loop_of_an_attack():
    network = preact_resnet18(shape=(32, 32, 3), classes=4, width=4)
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)

    def called_twice(weights):
        predict = bind(network, weights, state, training=False)
        return predict(tf.zeros([1, 32, 32, 3])) + predict(tf.ones([1, 32, 32, 3]))

    graph = tf.function(called_twice, autograph=False).get_concrete_function(weights).graph
    transforms = [op for op in graph.get_operations() if op.type == "MatMul" and op.inputs[0].shape == (36, 9)]
    fast = [
        layer for layer in network.layers if isinstance(layer, Conv2D) and layer.prepared(tf.zeros(layer.kernel.shape))
    ]
    assert len(transforms) == len(fast) == 6


def test_a_gradient_goes_through_kernels_that_are_made_ready():
    network = preact_resnet18(shape=(32, 32, 3), classes=4, width=4)
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)

    @tf.function(autograph=False)
    def gradients(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            total = tf.reduce_sum(bind(network, weights, state, training=False)(tf.ones([2, 32, 32, 3])) ** 2)
        return tape.gradient(total, weights)

    assert all(np.abs(gradient).max() > 0 for gradient in gradients(weights))


def test_a_strided_convolution_is_padded_on_both_sides(tmp_path):
    inputs = keras.Input((8, 8, 16))
    network = keras.Model(inputs, conv(inputs, 2, stride=2, initializer="ones", name="conv"))
    image = np.zeros((1, 8, 8, 16), np.float32)
    image[0, 0, 0] = 1.0
    assert network(image)[0, 0, 0, 0] == 16
    network.save(tmp_path / "x.keras")
    assert isinstance(keras.models.load_model(tmp_path / "x.keras").layers[-1], Conv2D)
