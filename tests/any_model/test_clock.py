import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

import awp_tf
from awp_tf.any_model.clock import Clock
from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP, RandomPerturbation
from awp_tf.schedules import Piecewise
from awp_tf.threats import Linf

X, Y = keras_models.table(), keras_models.classes()


def fit(start, *, perturbation=AWP(0.5), optimizer="sgd", where=None, attack=None, **settings):
    """The weights after each step."""
    keras.utils.set_random_seed(0)
    seen = []
    network = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    model = awp_tf.perturbed(network, perturbation, start=start, where=where, attack=attack)
    model.compile(optimizer=optimizer, **keras_models.cross_entropy())
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(network.get_weights()[0])
    )
    model.fit(X, Y, **{"batch_size": 9, "epochs": 3, "shuffle": False, "verbose": 0, "callbacks": [record], **settings})
    return seen


def first_difference(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if not np.array_equal(a, b)), None)


@pytest.mark.parametrize(("start", "step"), [(0.0, 0), (0.5, 6), (0.4, 5), (0.99, None), (7, 7), (0, 0), (100, None)])
def test_weights_are_perturbed_from_the_share_or_the_step_on(start, step):
    plain = fit(0.0, perturbation=AWP(0.0))
    assert first_difference(plain, fit(start)) == step


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_share_goes_by_whole_epochs_where_their_length_is_not_known():
    def data():
        batches = lambda: ((X[i : i + 9], Y[i : i + 9]) for i in range(0, 36, 9))  # noqa: E731
        signature = (tf.TensorSpec([9, 6]), tf.TensorSpec([9], tf.int64))
        return tf.data.Dataset.from_generator(batches, output_signature=signature)

    plain, perturbed = weights_by_epoch(data(), 0.0, AWP(0.0)), weights_by_epoch(data(), 0.5, AWP(0.5))
    assert first_difference(plain, perturbed) == 2


def weights_by_epoch(data, start, perturbation):
    keras.utils.set_random_seed(0)
    seen = []
    network = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    model = awp_tf.perturbed(network, perturbation, start=start)
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(network.get_weights()[0]))
    model.fit(data, epochs=3, verbose=0, shuffle=False, callbacks=[record])
    return seen


def test_a_run_in_two_calls_of_fit_is_one_run():
    whole = fit(0.5)
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    model = awp_tf.perturbed(network, AWP(0.5), start=0.5)
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    settings = {"batch_size": 9, "shuffle": False, "verbose": 0}
    model.fit(X, Y, epochs=3, steps_per_epoch=4, **settings, callbacks=[Stop(after=2)])
    model.fit(X, Y, epochs=3, initial_epoch=2, **settings)
    np.testing.assert_array_equal(network.get_weights()[0], whole[-1])


class Stop(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.after


def test_updates_count_where_gradients_accumulate():
    accumulating = lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)  # noqa: E731
    plain = fit(0.0, perturbation=AWP(0.0), optimizer=accumulating())
    # Six updates in three epochs; the third one, update 2, is written by batch 5.
    assert first_difference(plain, fit(2, optimizer=accumulating())) == 5
    assert first_difference(plain, fit(0.34, optimizer=accumulating())) in (5, 7)


def test_schedules_go_by_epochs():
    scheduled = fit(0.0, perturbation=AWP(gamma=Piecewise(0.5, 4, drops=(0.375,), factor=0.0)))
    # As gamma = 0.5 until 1.5 epochs are over, and without from there on.
    assert first_difference(fit(0.0), scheduled) == 6
    chosen = fit(0.0, perturbation=AWP(gamma=Piecewise(0.5, 4, drops=(0.375,), factor=0.0)), where="kernel")
    assert first_difference(fit(0.0, where="kernel"), chosen) == 6


def test_the_radius_of_an_attack_goes_by_epochs_too():
    at = lambda epsilon: PGD(Linf(epsilon), steps=2, box=None)  # noqa: E731
    scheduled = fit(0.0, attack=at(Piecewise(0.5, 4, drops=(0.375,), factor=0.0)))
    assert first_difference(fit(0.0, attack=at(0.5)), scheduled) == 6


def test_a_share_needs_fit():
    model = awp_tf.perturbed(keras_models.dense(), AWP(), start=0.5)
    model.compile(optimizer="sgd", **keras_models.cross_entropy())
    with pytest.raises(UserError, match=r"start: expected a step .* outside of fit, received 0.5"):
        model.train_on_batch(X, Y)


def test_epochs_follow_from_updates():
    clock = Clock(0.5)
    clock.set(epoch=2, updates=10, updates_per_epoch=5, epochs=6)
    assert float(clock.epoch(tf.constant(12))) == pytest.approx(2.4)
    assert not clock.begun(tf.constant(12), clock.epoch(tf.constant(12)))
    assert clock.begun(tf.constant(15), clock.epoch(tf.constant(15)))


@pytest.mark.parametrize(("start", "epoch"), [(0.07, 7), (0.14, 14), (0.5, 50)])
def test_a_share_of_epochs_is_met_whatever_its_product_rounds_to(start, epoch):
    clock = Clock(start)
    clock.set(epoch, 0, float("inf"), 100)
    assert clock.begun(tf.constant(0), clock.epoch(tf.constant(0)))
    clock.set(epoch - 1, 0, float("inf"), 100)
    assert not clock.begun(tf.constant(0), clock.epoch(tf.constant(0)))


def test_batches_whose_gradients_keras_accumulates_have_noise_of_their_own():
    points = []

    class Spy(RandomPerturbation):
        def __call__(self, weights, gradient, seed, start=None):
            found = super().__call__(weights, gradient, seed, start)
            points.append((found[0][0] - weights[0]).numpy())
            return found

    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input([6]), keras.layers.Dense(3)])
    model = awp_tf.perturbed(network, Spy(0.5))
    optimizer = keras.optimizers.SGD(0.0, gradient_accumulation_steps=2)
    model.compile(optimizer=optimizer, run_eagerly=True, **keras_models.cross_entropy())
    model.fit(X, Y, batch_size=9, epochs=2, shuffle=False, verbose=0)
    assert len({point.tobytes() for point in points}) == len(points) == 8
