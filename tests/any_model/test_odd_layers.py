"""Layers, losses and models that keep state where Keras does not list it, or hide their gradient."""

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf
from any_model.test_equals_keras import assert_same

import awp_tf
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP, SAM

DENSE = {"x": keras_models.table(), "y": keras_models.classes()}
SEQUENCE = {"x": np.repeat(keras_models.table()[:, None], 3, axis=1), "y": keras_models.classes(), "batch_size": 9}


def stateful():
    rnn = keras.layers.GRU(4, stateful=True)
    return keras.Sequential([keras.Input(batch_shape=(9, 3, 6)), rnn, keras.layers.Dense(3)])


class Unseeded(keras.layers.Layer):
    """Draws from Keras' global generator."""

    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


def unseeded():
    return keras.Sequential([keras.Input([6]), Unseeded(), keras.layers.Dense(3)])


class Reports(keras.Model):
    """compute_loss that knows whether it is training, and compute_metrics that says more."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(3)

    def call(self, x):
        return self.out(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        return super().compute_loss(x, y, y_pred, sample_weight) * (2.0 if training else 1.0)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {
            **super().compute_metrics(x, y, y_pred, sample_weight),
            "more": {"largest": keras.ops.max(y_pred), "pi": 3.0},
        }


def reports():
    model = Reports()
    model(DENSE["x"][:2])
    return model


@pytest.mark.parametrize(
    ("make", "data"), [(stateful, {**SEQUENCE, "shuffle": False}), (unseeded, DENSE), (reports, DENSE)]
)
@pytest.mark.parametrize("perturbation", [AWP(0.0), SAM(0.0)])
def test_state_in_odd_places_is_that_of_plain_fit(make, data, perturbation):
    assert_same(make, keras_models.cross_entropy(), data, perturbation)


class Compiled(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    @tf.function
    def call(self, x):
        return tf.matmul(x, self.kernel)


class Recomputed(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
        self.product = keras.remat(lambda x: tf.matmul(x, self.kernel.value))

    def call(self, x):
        return self.product(x)


@pytest.mark.parametrize("kind", [Compiled, Recomputed])
def test_layers_that_hide_their_gradient_are_named(kind):
    network = keras.Sequential([keras.Input([6]), kind(name="odd"), keras.layers.Dense(3)])
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    with pytest.raises(UserError, match=r"expected layers without tf.function and keras.remat, received .*odd/kernel"):
        model.fit(**DENSE, verbose=0)


def test_layers_that_write_their_trained_weight_are_named():
    layer = keras.layers.SpectralNormalization(keras.layers.Dense(3))
    model = awp_tf.perturbed(keras.Sequential([keras.Input([6]), layer]), AWP(0.1))
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    with pytest.raises(UserError, match=r"do not write trained weights in their call, received .*dense.*/kernel"):
        model.fit(**DENSE, verbose=0)


def test_a_train_step_of_one_object_is_refused_too():
    network = keras_models.dense()
    network.train_step = lambda data: {}
    with pytest.raises(UserError, match="expected Keras' own train_step"):
        awp_tf.perturbed(network, AWP())


class Late(keras.Model):
    """Makes a weight when it is first trained."""

    def __init__(self):
        super().__init__()
        self.out, self.extra = keras.layers.Dense(3), keras.layers.Dense(3)

    def call(self, x, training=False):
        return self.out(x) + (self.extra(x) if training else 0.0)


@pytest.mark.filterwarnings("ignore:`build")
def test_weights_that_are_made_in_the_first_step_are_said():
    network = Late()
    network(DENSE["x"])
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    with pytest.raises(UserError, match=r"call it once on a batch with training=True before awp_tf.perturbed"):
        model.fit(**DENSE, verbose=0)
    network = Late()
    network(DENSE["x"], training=True)
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    model.fit(**DENSE, verbose=0)


def test_a_fit_of_its_own_is_refused():
    class Fits(Late):
        def fit(self, *args, **kwargs):
            return None

    network = Fits()
    network(DENSE["x"], training=True)
    with pytest.raises(UserError, match="expected Keras' own fit, received that of Fits"):
        awp_tf.perturbed(network, AWP())
