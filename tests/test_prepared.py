import keras
import tensorflow as tf

from awp_tf.prepared import prepared, ready_of, using


class Doubling(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), initializer="ones")

    def prepared(self, kernel):
        return 2 * kernel

    def call(self, x):
        ready = ready_of(self)
        return x * (2 * self.kernel if ready is None else ready)


def network():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Doubling()(keras.layers.Dense(3, kernel_initializer="identity")(inputs)))


def test_a_layer_finds_what_it_made_of_a_value_of_its_kernel_inside_only():
    model = network()
    ready = prepared(model, [(variable, variable + 1.0) for variable in model.trainable_variables])
    x = tf.ones([1, 3])
    assert float(model(x)[0, 0]) == 2
    with using(ready):
        assert float(model(x)[0, 0]) == 4
        with using({}):
            assert float(model(x)[0, 0]) == 2
    assert float(model(x)[0, 0]) == 2


def test_layers_whose_kernel_has_no_value_are_left_out():
    assert prepared(network(), []) == {}
