"""Which form of a convolution is chosen, and what is made ready for it."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.functional import bind, read
from awp_tf.networks import convolution, preact_resnet18
from awp_tf.networks.convolution import Conv2D, as_keras_does, conv


@pytest.fixture
def narrow(monkeypatch):
    """A CPU without AVX-512, whatever this one is."""
    monkeypatch.setattr(convolution, "has_avx512", lambda: False)


@pytest.fixture
def wide(monkeypatch):
    """A CPU with it."""
    monkeypatch.setattr(convolution, "has_avx512", lambda: True)


def nodes(size, dtype, channels=16, **settings):
    """Kinds of the operations of a layer on images of a size."""
    layer = Conv2D(8, 3, padding="same", data_format="channels_last", use_bias=False, dtype=dtype, **settings)
    layer.build((None, *size, channels))
    spec = tf.TensorSpec([2, *size, channels], layer.compute_dtype)
    return {op.type for op in tf.function(layer, autograph=False).get_concrete_function(spec).graph.get_operations()}


FAST = [((4, 4), "float32"), ((8, 8), "float32"), ((8, 8), "float64"), ((4, 4), "mixed_bfloat16")]
DIRECT = [((16, 16), "float32"), ((6, 6), "float32"), ((8, 8), "mixed_bfloat16")]


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(("size", "dtype"), FAST)
def test_small_images_take_a_matrix_product(size, dtype):
    assert "Conv2D" not in nodes(size, dtype)
    with as_keras_does():
        assert "Conv2D" in nodes(size, dtype)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(("size", "dtype"), DIRECT)
def test_others_are_as_keras_has_them(size, dtype):
    assert "Conv2D" in nodes(size, dtype)


OTHERS = [{"strides": 2}, {"dilation_rate": 2}, {"groups": 2}, {"channels": 8}]


@pytest.mark.parametrize("cpu", ["narrow", "wide"])
@pytest.mark.parametrize("settings", OTHERS)
def test_so_are_strides_and_whatever_else_a_form_does_not_know(settings, cpu, request):
    request.getfixturevalue(cpu)
    assert not {"MatMul", "BatchMatMulV2", "ReverseV2"} & nodes((8, 8), "float32", **settings)


def gradients_of(dtype, **settings):
    """Kinds and types of the convolutions in the gradient of a layer's images and kernel."""
    layer = Conv2D(8, 3, padding="same", data_format="channels_last", use_bias=False, dtype=dtype, **settings)
    layer.build((None, 8, 8, 16))

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        assert y.dtype == layer.compute_dtype
        return tape.gradient(y, (x, layer.kernel.value))

    spec = tf.TensorSpec([2, 8, 8, 16], layer.compute_dtype)
    operations = tf.function(gradients, autograph=False).get_concrete_function(spec).graph.get_operations()
    return sorted((op.type, op.outputs[0].dtype.name) for op in operations if op.type.startswith("Conv2D"))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_without_avx512_the_gradient_of_images_is_a_convolution_forwards_in_float32(dtype):
    forwards = ("Conv2D", "float32")
    assert gradients_of(dtype) == [forwards, forwards, ("Conv2DBackpropFilter", "float32")]
    strided = gradients_of(dtype, strides=2)
    assert strided == [forwards, ("Conv2DBackpropFilter", "float32"), ("Conv2DBackpropInput", "float32")]


@pytest.mark.usefixtures("narrow")
def test_without_avx512_an_exported_graph_keeps_its_type():
    with as_keras_does():
        assert {dtype for _, dtype in gradients_of("mixed_bfloat16")} == {"bfloat16"}


@pytest.mark.usefixtures("wide")
def test_with_avx512_16_bits_are_computed_as_such():
    assert {dtype for _, dtype in gradients_of("mixed_bfloat16", strides=2)} == {"bfloat16"}


@pytest.mark.parametrize("cpu", ["narrow", "wide"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
def test_a_network_is_the_same_with_kernels_that_are_made_ready(dtype, cpu, request):
    request.getfixturevalue(cpu)
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


def is_made(op):
    """Whether it is the first operation of at_points or of turn."""
    return op.type == "ReverseV2" or (op.type == "MatMul" and op.inputs[0].shape == (36, 9))


@pytest.mark.parametrize("cpu", ["narrow", "wide"])
def test_kernels_are_made_ready_outside_the_loop_of_an_attack(cpu, request):
    request.getfixturevalue(cpu)
    network = preact_resnet18(shape=(32, 32, 3), classes=4, width=4)
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)

    def called_twice(weights):
        predict = bind(network, weights, state, training=False)
        return predict(tf.zeros([1, 32, 32, 3])) + predict(tf.ones([1, 32, 32, 3]))

    graph = tf.function(called_twice, autograph=False).get_concrete_function(weights).graph
    made = list(filter(is_made, graph.get_operations()))
    unstrided = [layer for layer in network.layers if isinstance(layer, Conv2D) and layer.strides == (1, 1)]
    fast = [layer for layer in unstrided if layer.prepared(tf.zeros(layer.kernel.shape))]
    assert len(made) == len(fast) == 6


@pytest.mark.usefixtures("narrow")
def test_without_avx512_kernels_of_numpy_stay_constants():
    layer = Conv2D(8, 3, padding="same", data_format="channels_last", use_bias=False)
    layer.build((None, 8, 8, 16))
    _, ready = layer.prepared(np.zeros(layer.kernel.shape, np.float32))
    assert [type(each) for each in ready] == [np.ndarray] * 2


@pytest.mark.parametrize("cpu", ["narrow", "wide"])
def test_a_gradient_goes_through_kernels_that_are_made_ready(cpu, request):
    request.getfixturevalue(cpu)
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


@pytest.mark.parametrize("size", [7, 8])
def test_a_strided_convolution_of_few_channels_is_that_of_keras(size, rng):
    x = tf.constant(rng.normal(size=(2, size, size, 3)), tf.float64)
    found = []
    for kind in (Conv2D, keras.layers.Conv2D):
        layer = kind(5, 1, 2, "same", "channels_last", use_bias=False, dtype="float64")
        layer.build(x.shape)
        layer.kernel.assign(np.arange(15.0).reshape(1, 1, 3, 5))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            value = tf.reduce_sum(tf.sin(y))
        found.append([y, *tape.gradient(value, [x, layer.kernel.value])])
    for ours, of_keras in zip(*found, strict=True):
        np.testing.assert_allclose(ours, of_keras, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["AVX2", "ALL"])
@pytest.mark.parametrize("width", [4, 8, 15])
def test_narrow_networks_with_an_odd_batch_do_not_end_the_process(width, processor):
    code = f"""
import tensorflow as tf
from awp_tf.networks import preact_resnet18
network = preact_resnet18(shape=(32, 32, 3), classes=4, width={width})
for _ in range(5):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(tf.random.normal([7, 32, 32, 3]), training=True) ** 2)
    tape.gradient(loss, [v.value for v in network.trainable_variables])
"""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "ONEDNN_MAX_CPU_ISA": processor, "MALLOC_CHECK_": "3"}
    checked = pathlib.Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")  # of glibc: memory is looked at when freed
    if checked.exists():
        environment["LD_PRELOAD"] = str(checked)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
