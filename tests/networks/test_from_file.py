"""A network of a file as it is: what is kept, what is trained, what is refused."""

import zipfile

import keras
import numpy as np
import pytest
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_trainer, weights_of

from awp_tf.averaging import EMA
from awp_tf.functional import predictor
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import UserError
from awp_tf.networks import from_file, preact_resnet18, vit
from awp_tf.networks.heads import with_weights


def of_keras():
    inputs = keras.Input(SHAPE)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(x), name="keras_own")


def compiled():
    network = tiny_network()
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(*tiny_batch(), verbose=0)
    return network


KINDS = {
    "ours": lambda: preact_resnet18(shape=SHAPE, classes=CLASSES, width=2),
    "vit": lambda: vit(shape=SHAPE, classes=CLASSES, patch=4, width=8, depth=1, heads=2),
    "keras": of_keras,
    "sequential": lambda: keras.Sequential(of_keras().layers),
    "nested": lambda: keras.Sequential([keras.Input(SHAPE), of_keras()]),
    "compiled": compiled,
}


def read(place, **settings):
    return from_file(**{"shape": SHAPE, "classes": CLASSES, "path": str(place / "first.keras"), **settings})


@pytest.fixture(params=KINDS)
def first(request, tmp_path):
    keras.utils.set_random_seed(0)
    network = KINDS[request.param]()
    network(tiny_batch()[0], training=True)  # statistics leave their start
    network.save(tmp_path / "first.keras")
    return network


def test_it_is_the_network_of_the_file_and_trains_on(first, tmp_path):
    network, (x, y) = read(tmp_path), tiny_batch()
    assert_same_weights(network, first)
    np.testing.assert_array_equal(predictor(network)(x), predictor(first)(x))
    assert network.name == first.name
    require_readable(network)
    trainer = tiny_trainer(network, averaging=EMA)
    assert np.isfinite(trainer.train_step((x, y))["loss"])
    for variable, was in zip(network.trainable_variables, first.trainable_variables, strict=True):
        assert (np.asarray(variable) != np.asarray(was)).any(), variable.path


@pytest.mark.parametrize("count", [1, 2, None])
def test_the_last_layers_are_trained_and_those_of_the_file_that_were_frozen(count, tmp_path):
    frozen = tiny_network()
    frozen.layers[2].trainable = False
    frozen.save(tmp_path / "first.keras")
    network = read(tmp_path, trainable=count)
    trained = {id(w) for layer in list(with_weights(network))[-(count or 6) :] for w in layer.weights}
    assert {id(v) for v in network.trainable_variables} == trained
    before = weights_of(network)
    tiny_trainer(network).train_step(tiny_batch())
    for variable, was in zip(network.weights, before, strict=True):
        assert (np.asarray(variable) != was).any() == (id(variable) in trained), variable.path


def with_last(layer):
    def make():
        plain = tiny_network()
        return keras.Model(plain.input, layer(plain.output))

    return make


REFUSED = {
    "softmax": (with_last(keras.layers.Softmax()), {}, "expected logits, received probabilities"),
    "sigmoid": (
        with_last(keras.layers.Dense(4, "sigmoid", name="last")),
        {},
        "expected logits, received probabilities",
    ),
    "no classifier": (with_last(keras.layers.Reshape((4, 1))), {}, r"from images .* to logits \[B, K\]"),
    "shape": (tiny_network, {"shape": (32, 32, 3)}, r"images of shape \(32, 32, 3\), .* received one for \(8, 8, 1\)"),
    "fewer classes": (
        tiny_network,
        {"classes": 10},
        "for the 10 classes of the data, received one for 4; gin",
    ),
    "more classes": (tiny_network, {"classes": 3}, "for the 3 classes of the data, received one for 4"),
    "trainable": (tiny_network, {"trainable": 7}, "from_file.trainable: expected at most the 6 layers of small_cnn"),
    "lambda": (
        with_last(keras.layers.Lambda(lambda x: 2 * x)),
        {},
        "cannot be read as a Keras network; .*Lambda.* disallowed by default",
    ),
}


@pytest.mark.parametrize(("make", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_a_network_that_does_not_fit_is_one_line(make, settings, message, tmp_path):
    make().save(tmp_path / "first.keras")
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, **settings)
    assert "\n" not in str(error.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"from_file.path: expected a .keras file, received '.*first.keras'"):
        read(tmp_path)
    (tmp_path / "first.h5").write_text("weights")
    with pytest.raises(UserError, match=r"from_file.path: expected a .keras file, received '.*first.h5'"):
        read(tmp_path, path=str(tmp_path / "first.h5"))
    with zipfile.ZipFile(tmp_path / "first.keras", "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(UserError, match="cannot be read as a Keras network"):
        read(tmp_path)


def test_another_precision_is_refused(tmp_path):
    tiny_network().save(tmp_path / "first.keras")
    keras.config.set_floatx("float64")
    with pytest.raises(UserError, match=r"expected a network that takes float64, .* takes float32"):
        read(tmp_path)
