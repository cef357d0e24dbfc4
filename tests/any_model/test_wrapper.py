import pickle

import keras
import keras_models
import numpy as np
import pytest

import awp_tf
from awp_tf.any_model.wrapper import Wrapper
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP

DENSE = {"x": keras_models.table(), "y": keras_models.classes()}


def test_what_is_saved_and_what_is_said_is_the_networks(tmp_path, capsys):
    network = keras_models.dense()
    wrapper = Wrapper(network, name="outside")
    wrapper.save(tmp_path / "it.keras")
    assert type(keras.models.load_model(tmp_path / "it.keras")) is keras.Sequential
    wrapper.save_weights(tmp_path / "it.weights.h5")
    network.layers[0].kernel.assign(network.layers[0].kernel + 1)
    wrapper.load_weights(tmp_path / "it.weights.h5")
    np.testing.assert_array_equal(wrapper(DENSE["x"]), network(DENSE["x"]))
    wrapper.summary()
    assert network.name in capsys.readouterr().out


def test_callbacks_see_the_layers_and_a_history_can_be_pickled():
    network = keras_models.dense()
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    assert model.layers == network.layers
    assert model.get_layer(network.layers[0].name) is network.layers[0]
    callbacks = keras.callbacks.CallbackList(
        [keras.callbacks.LambdaCallback()], add_history=True, model=model, epochs=1
    )
    callbacks.set_params({"epochs": 2, "steps": 5, "verbose": 0})
    history = model.fit(**DENSE, epochs=2, verbose=0, callbacks=callbacks)
    assert len(callbacks.callbacks) == 2  # and no clock of ours
    again = pickle.loads(pickle.dumps(model.fit(**DENSE, verbose=0)))
    assert type(again.model) is keras.Sequential
    assert len(history.history["loss"]) == 2


def test_what_else_is_public_is_found_and_nothing_of_ours_is_saved():
    network = keras_models.tables_and_tokens()
    wrapper = Wrapper(network, name="outside")
    assert wrapper.input_shape == network.input_shape
    assert wrapper.outputs is network.outputs
    with pytest.raises(AttributeError):
        wrapper.nothing  # noqa: B018
    with pytest.raises(UserError, match=r"save or clone model.network"):
        keras.models.clone_model(wrapper)
