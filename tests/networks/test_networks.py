"""The three networks and the layers they are made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.functional import predictor
from awp_tf.infra.errors import UserError
from awp_tf.networks import preact_resnet18, small_cnn, wide_resnet
from awp_tf.networks.layers import ACTIVATIONS


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize(
    ("make", "trainable", "statistics", "kernels"),
    [
        (preact_resnet18, 11_172_170, 7_808, 21),
        (lambda: preact_resnet18(classes=100), 11_218_340, 7_808, 21),
        (wide_resnet, 46_160_474, 22_432, 35),
        (lambda: wide_resnet(depth=28), 36_479_194, 17_952, 29),
    ],
    ids=["preact_resnet18", "preact_resnet18-100", "wrn_34_10", "wrn_28_10"],
)
def test_sizes_equal_the_reference(make, trainable, statistics, kernels):
    network = make()
    assert count(network.trainable_variables) == trainable
    assert count(network.non_trainable_variables) == statistics
    assert sum(len(v.shape) > 1 for v in network.trainable_variables) == kernels


@pytest.mark.parametrize(
    "make",
    [
        lambda: preact_resnet18(width=4, shape=(28, 28, 1), classes=3),
        lambda: wide_resnet(depth=10, width=1, shape=(16, 16, 3), classes=3),
        lambda: small_cnn(shape=(8, 8, 1), classes=3, width=2),
    ],
    ids=["preact_resnet18", "wide_resnet", "small_cnn"],
)
def test_saved_and_loaded_networks_agree(make, tmp_path, rng):
    network = make()
    x = tf.constant(rng.uniform(0, 1, (4, *network.input_shape[1:])), tf.float32)
    network(x, training=True)  # moves BatchNorm statistics away from their start
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(predictor(loaded)(x), predictor(network)(x))
    assert predictor(network)(x).shape == (4, 3)


def test_preact_resnet18_starts_as_pytorch_does():
    network = preact_resnet18()
    deepest, dense = network.get_layer("layer4.1.conv2").kernel, network.get_layer("linear").kernel
    assert np.abs(deepest).max() == pytest.approx(4608**-0.5, rel=1e-3)
    assert np.abs(dense).max() == pytest.approx(512**-0.5, rel=1e-2)
    assert 0.5 * 512**-0.5 < np.abs(network.get_layer("linear").bias).max() <= 512**-0.5


def test_wide_resnet_starts_as_the_reference_does():
    network = wide_resnet(depth=16, width=4)
    kernel = np.asarray(network.get_layer("block3.layer.1.conv2").kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=1e-2)
    assert np.abs(kernel).max() > 4 * kernel.std()  # not truncated
    np.testing.assert_array_equal(network.get_layer("fc").bias, 0)


def test_normalisation_is_part_of_the_network():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    keras.utils.set_random_seed(0)
    inside = preact_resnet18(width=4, mean=mean, std=std)
    keras.utils.set_random_seed(0)
    outside = preact_resnet18(width=4)
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(inside(x), outside((x - np.float32(mean)) / np.float32(std)), atol=1e-5)


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"wide_resnet.depth: expected 6n \+ 4 .* received 30"):
        wide_resnet(depth=30)
    with pytest.raises(UserError, match=r"small_cnn\.shape"):
        small_cnn(shape=(2, 2, 1), classes=2)


def test_bfloat16_keeps_pixels_and_logits_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = preact_resnet18(width=4)
    assert network.get_layer("normalize").compute_dtype == "float32"
    assert network.get_layer("layer1.0.conv1").compute_dtype == "bfloat16"
    assert predictor(network)(tf.zeros([2, 32, 32, 3])).dtype == tf.float32


MAKERS = {
    "preact_resnet18": lambda **settings: preact_resnet18(width=2, **settings),
    "wide_resnet": lambda **settings: wide_resnet(depth=10, width=1, **settings),
    "small_cnn": lambda **settings: small_cnn(shape=(32, 32, 3), classes=10, width=2, **settings),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_another_activation_changes_what_is_computed_and_no_weight(make):
    networks = []
    for settings in ({}, {"activation": "relu"}, {"activation": "silu"}):
        keras.utils.set_random_seed(0)
        networks.append(make(**settings))
    plain, relu, silu = networks
    assert plain.to_json() == relu.to_json()
    assert [w.path for w in plain.weights] == [w.path for w in silu.weights]
    for one, other in zip(plain.get_weights(), silu.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    assert np.abs(plain(x) - silu(x)).max() > 1e-4
    assert '"silu"' in silu.to_json()
    assert '"relu"' not in silu.to_json()


def test_relu_layers_are_called_as_they_always_were():
    for network, names in ((MAKERS["preact_resnet18"](), 17), (MAKERS["wide_resnet"](), 7)):
        layers = [layer for layer in network.layers if type(layer) is keras.layers.ReLU]
        assert len(layers) == names
        assert all(layer.name.endswith(".relu") for layer in layers)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_that_is_named_is_one_of_keras_and_one_number_at_a_time(name):
    function, x = keras.activations.get(name), tf.constant([-2.0, 0.5, 3.0])
    np.testing.assert_allclose(function(x), [function(tf.constant([v]))[0] for v in x.numpy()], rtol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_an_activation_that_is_not_known_is_one_line(name):
    with pytest.raises(UserError, match=rf"{name}.activation: expected one of relu, silu, .* Did you mean 'silu'\?"):
        MAKERS[name](activation="silo")
