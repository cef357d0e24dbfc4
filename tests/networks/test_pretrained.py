"""Networks of files with a new head: what is kept, what is trained, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_trainer, weights_of

from awp_tf.averaging import EMA
from awp_tf.functional import predictor
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import UserError
from awp_tf.networks import preact_resnet18, pretrained
from awp_tf.networks.heads import with_weights


def with_keras_batchnorm():
    inputs = keras.Input(SHAPE)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(7)(x), name="keras_own")


KINDS = {
    "ours": lambda: preact_resnet18(shape=SHAPE, classes=7, width=2),
    "keras": with_keras_batchnorm,
    "sequential": lambda: keras.Sequential(with_keras_batchnorm().layers),
    "nested": lambda: keras.Sequential([keras.Input(SHAPE), with_keras_batchnorm(), keras.layers.Dense(5)]),
}


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    keras.utils.set_random_seed(0)
    network = KINDS[request.param]()
    network(tf.random.stateless_uniform([8, *SHAPE], [0, 1]), training=True)  # statistics leave their start
    network.save(tmp_path / "first.keras")
    return tmp_path / "first.keras"


def tuned(file, **settings):
    return pretrained(shape=SHAPE, classes=CLASSES, path=str(file), **settings)


def test_all_but_the_head_is_what_the_file_holds(file):
    first, network = keras.models.load_model(file), tuned(file)
    x, _ = tiny_batch()
    features = keras.Model(network.inputs, network.get_layer("head").input)(x)
    np.testing.assert_array_equal(first.layers[-1](features), first(x))
    assert network(x).shape == (8, CLASSES)
    assert network.name == first.name
    limit = features.shape[-1] ** -0.5
    for variable in network.get_layer("head").weights:
        assert 0.3 * limit < np.abs(variable).max() <= limit


def test_the_head_follows_the_seed(file):
    heads = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        heads.append(np.asarray(tuned(file).get_layer("head").kernel))
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).all()


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_of_training_moves_the_last_layers_and_nothing_else(file, count):
    network = tuned(file, trainable=count)
    last = {id(w) for layer in list(with_weights(network))[-count:] for w in layer.weights}
    before = weights_of(network)
    trainer = tiny_trainer(network, averaging=EMA)
    trainer.train_step(tiny_batch())
    for variable, was in zip(network.weights, before, strict=True):
        assert (np.asarray(variable) != was).any() == (id(variable) in last), variable.path
    for variable, was, average in zip(network.weights, before, weights_of(trainer.averaged.network), strict=True):
        assert (np.abs(average - was).max() > 1e-6) == (id(variable) in last)


def test_a_step_of_training_moves_all_layers_where_nothing_is_said(file):
    network = tuned(file)
    before = weights_of(network)
    tiny_trainer(network).train_step(tiny_batch())
    assert all((now != was).any() for now, was in zip(weights_of(network), before, strict=True))


def test_it_is_saved_loaded_and_cloned_frozen_layers_included(file, tmp_path):
    network = tuned(file, trainable=2)
    require_readable(network)
    network.save(tmp_path / "second.keras")
    loaded, clone = keras.models.load_model(tmp_path / "second.keras"), keras.models.clone_model(network)
    assert_same_weights(loaded, network)
    paths = [len(n.trainable_variables) for n in (network, loaded, clone)]
    assert len(set(paths)) == 1
    np.testing.assert_array_equal(predictor(loaded)(tiny_batch()[0]), predictor(network)(tiny_batch()[0]))
    whole = tuned(tmp_path / "second.keras")  # frozen before, trained now
    assert len(whole.trainable_variables) == len(tuned(file).trainable_variables) > paths[0]


def with_softmax():
    plain = tiny_network()
    return keras.Model(plain.input, keras.layers.Dense(3, activation="softmax")(plain.layers[-2].output))


REFUSED = {
    "softmax": (with_softmax, {}, "ends with logits, received one whose last layer has the activation softmax"),
    "no dense": (
        lambda: keras.Sequential([tiny_network(), keras.layers.Softmax()]),
        {},
        r"ends with Dense, .* received one that ends with Softmax",
    ),
    "shape": (tiny_network, {"shape": (32, 32, 3)}, r"images of shape \(32, 32, 3\), .* received one for \(8, 8, 1\)"),
    "many": (tiny_network, {"trainable": 7}, "pretrained.trainable: expected at most the 6 layers of small_cnn"),
    "none": (tiny_network, {"trainable": 0}, "pretrained.trainable: expected a whole number >= 1, received 0"),
}


@pytest.mark.parametrize(("make", "settings", "message"), REFUSED.values(), ids=REFUSED)
def test_a_head_that_does_not_fit_is_one_line(make, settings, message, tmp_path):
    make().save(tmp_path / "network.keras")
    with pytest.raises(UserError, match=message) as error:
        pretrained(**{"shape": SHAPE, "classes": 3, "path": str(tmp_path / "network.keras"), **settings})
    assert "\n" not in str(error.value)


def test_files_that_are_none_and_another_precision_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"pretrained.path: expected a .keras file, received 'nothing.keras'"):
        tuned("nothing.keras")
    tiny_network().save(tmp_path / "network.keras")
    keras.config.set_floatx("float64")
    with pytest.raises(UserError, match=r"expected a network that takes float64, .* takes float32"):
        tuned(tmp_path / "network.keras")
