"""Networks of keras.applications: their pixels, their heads, and a step of training."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_trainer, weights_of

from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.networks import application
from awp_tf.networks.application import MODES, preprocess
from awp_tf.networks.heads import with_weights

SHAPE, NARROW = (32, 32, 3), {"name": "MobileNet", "settings": {"alpha": 0.25}}


def batch(rng, count=4):
    return tf.constant(rng.uniform(0, 1, (count, *SHAPE)), tf.float32), tf.constant(np.arange(count) % 5)


def test_every_network_of_keras_has_its_preprocessing():
    names = {name for name, thing in vars(keras.applications).items() if name[0].isupper() and callable(thing)}
    assert set(MODES) == names


@pytest.mark.parametrize("name", MODES)
def test_pixels_are_what_preprocess_input_makes_of_them(name, rng):
    inputs = keras.Input(SHAPE)
    pixels = rng.integers(0, 256, (2, *SHAPE)).astype("float32")
    own = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
    ours = keras.Model(inputs, preprocess(inputs, MODES[name]))(pixels / 255)
    np.testing.assert_allclose(ours, own(pixels.copy()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("trainable", [None, 3])
def test_a_step_of_adversarial_training_moves_what_is_trained(trainable, rng):
    network = application(shape=SHAPE, classes=5, trainable=trainable, **NARROW)
    before, layers = weights_of(network), list(with_weights(network))
    trained = {id(w) for layer in layers[-(trainable or len(layers)) :] for w in layer.weights}
    loss = tiny_trainer(network, method=AT()).train_step(batch(rng))["loss"]
    assert np.isfinite(loss)
    for variable, was in zip(network.weights, before, strict=True):
        if id(variable) not in trained:
            np.testing.assert_array_equal(variable, was)
    moved = [(now != was).any() for now, was in zip(weights_of(network), before, strict=True)]
    assert len(trained) * 0.9 < sum(moved) <= len(trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ResNet50", "ConvNeXtTiny"])
def test_other_kinds_of_networks_train_and_are_read_back(name, rng):
    network = application(shape=SHAPE, classes=5, name=name)
    require_readable(network)
    assert np.isfinite(tiny_trainer(network, method=AT()).train_step(batch(rng))["loss"])


# One of each kind that is not trained above: the others of a kind have its builder, and differ in depth and width.
KINDS = [
    "DenseNet121",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNetV2",
    "NASNetMobile",
    "ResNet50V2",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "VGG16", "Xception"])
def test_networks_of_every_kind_are_made_for_small_images(name):
    size = 75 if name in ("InceptionResNetV2", "InceptionV3", "Xception") else 32
    network = application(shape=(size, size, 3), classes=5, name=name)
    assert np.isfinite(network(np.full((1, size, size, 3), 0.5, np.float32))).all()
    keras.utils.clear_session()


def test_weights_of_a_file_are_taken_and_others_refused(tmp_path):
    first = application(shape=SHAPE, classes=5, **NARROW)
    body = keras.Model(first.input, first.layers[-2].output)
    body.save_weights(tmp_path / "body.weights.h5")
    second = application(shape=SHAPE, classes=2, weights=str(tmp_path / "body.weights.h5"), **NARROW)
    for one, other in zip(weights_of(first)[:-2], weights_of(second)[:-2], strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match=r"application: MobileNet cannot be made .*weights"):
        application(shape=SHAPE, classes=2, weights=str(tmp_path / "body.weights.h5"), name="MobileNet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ResNet5"}, "application.name: expected one of .* received 'ResNet5'. Did you mean 'ResNet50"),
        ({"shape": (16, 16, 3)}, r"images \(16, 16, 3\).* at least 32x32"),
        ({"shape": (32, 32, 1)}, r"expects images of 3 channels, received \(32, 32, 1\)"),
        ({"settings": {"alfa": 1}}, "settings {'alfa': 1}.*unexpected keyword"),
        ({"weights": "mine"}, "application.weights: expected None, 'imagenet', or an .h5 or .keras file"),
        ({"trainable": 100}, "application.trainable: expected at most the 55 layers"),
    ],
    ids=["name", "small", "grey", "setting", "weights", "trainable"],
)
def test_what_does_not_fit_is_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        application(**{"shape": SHAPE, "classes": 5, "name": "MobileNet", **settings})
    assert "\n" not in str(error.value)


def test_imagenet_without_a_network_is_one_line(monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure on https://storage.example/mobilenet.h5: None -- offline")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", offline)
    with pytest.raises(UserError, match=r"weights 'imagenet' .*URL fetch failure"):
        application(shape=(128, 128, 3), classes=5, name="MobileNet", weights="imagenet")


def test_in_bfloat16_pixels_keep_32_bits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    network = application(shape=SHAPE, classes=5)
    prepared = [layer for layer in network.layers if isinstance(layer, keras.layers.Rescaling)]
    assert len(prepared) == 2
    x = tf.constant([254.0, 255.0])[:, None, None, None] / 255 * tf.ones([2, *SHAPE])
    for layer in prepared:
        x = layer(x)
    assert x.dtype == tf.float32
    np.testing.assert_allclose(x[1] - x[0], 2 / 255, rtol=1e-3)
    assert network.get_layer("conv").compute_dtype == "bfloat16"
    assert network(tf.zeros([2, *SHAPE])).dtype == tf.float32
