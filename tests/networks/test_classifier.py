import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHAPE, tiny_batch, tiny_network

from awp_tf.infra.errors import UserError
from awp_tf.networks import classifier
from awp_tf.networks.classifier import digest, load, of_keras


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    network.save(folder / "tiny.keras")
    signature = [keras.InputSpec(shape=(None, *SHAPE), dtype="float32")]
    network.export(folder / "exported", input_signature=signature, verbose=False)
    return folder


@pytest.mark.parametrize("name", ["tiny.keras", "exported"])
def test_both_forms_give_the_networks_logits_and_gradients(network, saved, name):
    classifier, (x, _) = load(str(saved / name)), tiny_batch()
    assert (classifier.shape, classifier.classes, classifier.dtype) == (SHAPE, 4, "float32")
    np.testing.assert_allclose(classifier.predict(x), network(x, training=False), rtol=1e-5, atol=1e-6)
    gradients = []
    for predict in (classifier.predict, network):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(predict(x)[:, 0])
        gradients.append(tape.gradient(total, x))
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-6)
    assert classifier.parameters == network.count_params()


def test_another_network_has_another_digest(saved, tmp_path):
    tiny_network(1).save(tmp_path / "tiny.keras")
    digests = [load(str(place)).digest for place in (saved / "tiny.keras", saved / "exported", tmp_path / "tiny.keras")]
    assert len(set(digests)) == 3
    assert digest(saved / "tiny.keras") == digests[0]


def test_noise_at_evaluation_is_drawn_anew_in_every_call():
    predict, (x, _) = tf.function(of_keras(_noisy()).predict), tiny_batch()
    assert np.abs(predict(x) - predict(x)).max() > 1e-3


def test_weights_may_be_handed_to_a_graph_where_they_are_no_constants_of_it(network, saved, monkeypatch):
    x, _ = tiny_batch()
    constant, exported = of_keras(network), load(str(saved / "exported"))
    assert (constant.weights, exported.weights) == ((), ())
    assert exported.bind([tf.zeros([])]) is exported.predict  # what it reads is out of reach
    monkeypatch.setattr(classifier, "_MOST_CONSTANTS", 0)  # as on a GPU
    open_one = of_keras(network)
    logits = tf.function(lambda weights, x: open_one.bind(weights)(x))
    np.testing.assert_array_equal(logits(open_one.weights, x), tf.function(constant.predict)(x))
    nothing = [tf.zeros_like(weight) for weight in open_one.weights]
    np.testing.assert_array_equal(logits(nothing, x), np.zeros([len(x), 4]))
    assert open_one == dataclasses.replace(open_one, weights=nothing)


def test_noise_is_drawn_anew_on_every_device_too(monkeypatch):
    monkeypatch.setattr(classifier, "_MOST_CONSTANTS", 0)
    noisy, (x, _) = of_keras(_noisy()), tiny_batch()
    logits = tf.function(lambda weights, x: noisy.bind(weights)(x))
    with tf.device("CPU:1"):
        assert np.abs(logits(noisy.weights, x) - logits(noisy.weights, x)).max() > 1e-3


class _Noise(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def _noisy():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(_Noise()(inputs))))


def test_a_network_of_16_bits_is_attacked_in_32():
    inputs = keras.Input(SHAPE, dtype="bfloat16")
    hidden = keras.layers.Flatten(dtype="bfloat16")(inputs)
    found = of_keras(keras.Model(inputs, keras.layers.Dense(4, dtype="bfloat16")(hidden)))
    x, _ = tiny_batch()
    assert found.dtype == "float32"
    assert found.predict(x).dtype == tf.function(found.predict)(x).dtype == tf.float32


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"no zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "saved_model.pb").write_bytes(b"no model")
    messages = {
        "none.keras": "expected a .keras file",
        "folder": "expected a .keras file",
        "broken.keras": "cannot be read as a Keras network",
        "half": "cannot be read as a SavedModel",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message):
            load(str(tmp_path / name))


def test_what_is_no_classifier_of_images_is_refused(tmp_path):
    vectors = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    maps = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(3, 1)])
    open_size = keras.Sequential([keras.Input((None, None, 1)), keras.layers.GlobalMaxPool2D(), keras.layers.Dense(3)])
    for network in (vectors, maps, open_size):
        with pytest.raises(UserError, match=r"expected a network from images \[B, H, W, C\]"):
            of_keras(network)
    with pytest.raises(UserError, match=r"expected a network whose input is known; begin it with keras\.Input"):
        of_keras(_Subclassed())


class _Subclassed(keras.Model):
    def call(self, x):
        return x


def test_a_network_for_grey_levels_is_refused():
    inputs = keras.Input(SHAPE, dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    network = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(scaled)))
    with pytest.raises(UserError, match="expected an input of floats"):
        of_keras(network)


def test_networks_in_memory_are_told_apart_by_their_weights():
    first, second, again = of_keras(tiny_network(0)), of_keras(tiny_network(1)), of_keras(tiny_network(0))
    assert first.digest == again.digest != second.digest


def test_an_export_for_bytes_is_refused(tmp_path):
    class Bytes(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.uint8)])
        def __call__(self, images):
            return {"logits": tf.zeros([tf.shape(images)[0], 4])}

    module = Bytes()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.__call__})
    with pytest.raises(UserError, match="expected an input of floats"):
        load(str(tmp_path))
