import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHAPE, tiny_batch, tiny_network

from awp_tf.infra.errors import UserError
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
    inputs = keras.Input(SHAPE)
    network = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(_Noise()(inputs))))
    predict, (x, _) = tf.function(of_keras(network).predict), tiny_batch()
    assert np.abs(predict(x) - predict(x)).max() > 1e-3


class _Noise(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


def test_a_network_of_16_bits_is_attacked_in_32():
    inputs = keras.Input(SHAPE, dtype="bfloat16")
    hidden = keras.layers.Flatten(dtype="bfloat16")(inputs)
    classifier = of_keras(keras.Model(inputs, keras.layers.Dense(4, dtype="bfloat16")(hidden)))
    x, _ = tiny_batch()
    assert classifier.dtype == "float32"
    assert classifier.predict(x).dtype == tf.float32


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
    for network in (vectors, maps, open_size, _Subclassed()):
        with pytest.raises(UserError, match=r"expected a network from images \[B, H, W, C\]"):
            of_keras(network)


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
