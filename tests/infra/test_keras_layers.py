import keras

from awp_tf.infra.keras_layers import all_layers, is_synchronized


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
