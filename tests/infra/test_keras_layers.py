import keras
import pytest

from awp_tf.infra import keras_layers
from awp_tf.infra.keras_layers import all_layers, is_synchronized, say_of_unsafe_gradients
from awp_tf.networks.convolution import Conv2D


def nested(synchronized):
    shared = keras.layers.BatchNormalization(synchronized=synchronized, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, shared, keras.layers.Dense(2, name="dense")], name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(inputs), name="outer")


def test_layers_of_models_in_models_come_once():
    names = [layer.name for layer in all_layers(nested(False))]
    assert names[0] == "outer"
    assert [names.count(name) for name in ("outer", "inner", "shared", "dense")] == [1, 1, 1, 1]


def test_a_synchronized_layer_is_found_at_any_depth():
    assert is_synchronized(nested(True))
    assert not is_synchronized(nested(False))


@pytest.mark.parametrize(
    ("kind", "size", "stride", "channels", "onednn", "said"),
    [
        (keras.layers.Conv2D, 1, 2, 15, "1", True),
        (keras.layers.Conv2D, 1, 2, 16, "1", False),
        (keras.layers.Conv2D, 1, 1, 3, "1", False),
        (keras.layers.Conv2D, 3, 2, 3, "1", False),
        (Conv2D, 1, 2, 15, "1", False),  # ours is computed another way
        (keras.layers.Conv2D, 1, 2, 15, "0", False),
    ],
)
def test_layers_whose_gradients_are_not_safe_are_named(kind, size, stride, channels, onednn, said, monkeypatch, capsys):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    inputs = keras.Input((8, 8, channels))
    network = keras.Model(inputs, kind(4, size, stride, data_format="channels_last", name="shortcut")(inputs))
    say_of_unsafe_gradients(keras.Sequential([keras.Input((8, 8, channels)), network]))
    assert ("warning: shortcut: for odd batches" in capsys.readouterr().err) is said


def test_without_a_word_in_the_environment_onednn_is_on_where_there_is_avx512(monkeypatch, capsys):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1, 2)])
    for avx512 in (False, True):
        monkeypatch.setattr(keras_layers, "has_avx512", lambda avx512=avx512: avx512)
        say_of_unsafe_gradients(network)
        assert bool(capsys.readouterr().err) is avx512


def test_a_layer_that_was_never_called_has_no_gradient_to_be_named(monkeypatch, capsys):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    say_of_unsafe_gradients(keras.layers.Conv2D(4, 1, 2))
    assert not capsys.readouterr().err
