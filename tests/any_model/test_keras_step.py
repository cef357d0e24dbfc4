"""The pure part: it reads no variable and writes none, and counts metrics once."""

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

import awp_tf
from awp_tf.any_model.requirements import require_plain
from awp_tf.any_model.step import KerasBatch, KerasStep
from awp_tf.functional import read
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP, SAM
from awp_tf.step import Now


def compiled():
    network = keras_models.tables_and_tokens()
    network.compile(optimizer="sgd", **keras_models.TWO_LOSSES)
    network.evaluate(keras_models.both(), keras_models.both_targets(), verbose=0)  # builds losses and metrics
    network.reset_metrics()
    return network


def now_of(network):
    batch = KerasBatch(keras_models.both(), keras_models.both_targets(), None, tf.constant(1.0))
    state = read([*network.non_trainable_variables, *network.metrics_variables])
    return Now(read(network.trainable_variables), state, batch, tf.constant(0.0, tf.float64), tf.constant(0))


def step_of(network, perturbation):
    begun = lambda now: tf.constant(True)  # noqa: E731
    return KerasStep(network, attack=None, place=None, begun=begun, perturbation=perturbation, seed=0)


def test_no_variable_is_read_or_written():
    network = compiled()
    now, step = now_of(network), step_of(network, AWP(0.1))
    expected = step.descent(now, *step.search(now)[1:], None)
    for variable in network.variables:
        variable.assign(tf.cast(tf.fill(variable.shape, 77), variable.dtype))
    before = [v.numpy() for v in (*network.variables, *network.metrics_variables)]
    found = step.descent(now, *step.search(now)[1:], None)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(tf.convert_to_tensor(one), tf.convert_to_tensor(other))
    for variable, value in zip((*network.variables, *network.metrics_variables), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize("perturbation", [AWP(0.1), SAM(0.1), SAM(0.1, bn_update="both"), AWP(0.1, steps=3)])
def test_metrics_count_the_examples_of_a_step_once(perturbation):
    network = keras_models.tables_and_tokens()
    model = awp_tf.perturbed(network, perturbation)
    model.compile(optimizer=keras.optimizers.SGD(0.1), **keras_models.TWO_LOSSES)
    model.train_on_batch(keras_models.both(), keras_models.both_targets())
    counts = [v.numpy() for v in network.metrics_variables if v.path.endswith("count")]
    assert len(counts) == 5
    assert set(counts) == {float(keras_models.ROWS)}


def test_a_perturbation_that_is_not_finite_is_not_followed():
    network = compiled()
    now, step = now_of(network), step_of(network, AWP(float("inf")))
    _, points, _ = step.search(now)
    for point, weight in zip(points[0], now.weights, strict=True):
        np.testing.assert_array_equal(point, weight)


def test_what_trains_by_itself_is_refused():
    class Own(keras.Model):
        def train_step(self, data):
            return {}

    own = Own()
    own.built = True
    with pytest.raises(UserError, match="without weights"):
        require_plain(own)
