"""Training in float16: gradients that would vanish, and those that overflow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_trainer, weights_of
from test_trainer import batches, bn_network, steps

from awp_tf.attacks import PGD
from awp_tf.attacks.pgd import gradient_of
from awp_tf.averaging import EMA, SWA
from awp_tf.free import FreeTrainer
from awp_tf.functional import Recorder, bind, read
from awp_tf.loss_scale import Scaled, Unscaled, scaling
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT
from awp_tf.networks.classifier import of_keras
from awp_tf.optimizers import SGD
from awp_tf.perturbations import Identity
from awp_tf.threats import Linf
from awp_tf.training.strategy import mirrored

HALF = "mixed_float16"
FAINT = 1e-6  # of the loss's gradient where the network is sure; below 6e-8 float16 knows nothing


def network_in(precision):
    keras.config.set_dtype_policy(precision)
    return bn_network()


def bound(network):
    return bind(network, read(network.trainable_variables), read(network.non_trainable_variables), training=False)


def cosine(one, other):
    one, other = (np.concatenate([np.ravel(v) for v in values]).astype(np.float64) for values in (one, other))
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("predict_of", [bound, lambda network: of_keras(network).predict], ids=["bind", "evaluation"])
def test_gradients_of_images_do_not_vanish(predict_of):
    x, y = tiny_batch()
    half, full = network_in(HALF), network_in("float32")
    faint = [gradient_of(lambda x, p=predict_of(n): FAINT * cross_entropy(p(x), y), x) for n in (half, full)]
    lost = gradient_of(lambda x: FAINT * cross_entropy(tf.cast(half(x), tf.float32), y), x)
    assert cosine(*faint) > 0.999
    np.testing.assert_allclose(*map(np.linalg.norm, faint), rtol=0.02)
    assert np.mean(np.asarray(lost) == 0) > 3 * np.mean(np.asarray(faint[0]) == 0) + 0.1


def test_gradients_of_weights_do_not_vanish():
    found = []
    for network in (network_in(HALF), network_in("float32")):
        weights, (x, y) = read(network.trainable_variables), tiny_batch()
        with tf.GradientTape() as tape:
            tape.watch(weights)
            predict = Recorder(network, weights, read(network.non_trainable_variables), 2.0**15)
            loss = FAINT * tf.reduce_mean(cross_entropy(predict(x), y))
        found.append(tape.gradient(loss, weights, unconnected_gradients="zero"))
    assert cosine(*found) > 0.999


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_other_networks_are_left_alone(precision):
    trainer = tiny_trainer(network_in(precision))
    assert isinstance(scaling(trainer.network), Unscaled)
    assert isinstance(trainer.optimizer, SGD)
    assert "loss_scale" not in trainer.train_step(tiny_batch())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, loss_scale_factor=8.0),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
    ],
    ids=["loss_scale_factor", "LossScaleOptimizer"],
)
def test_an_optimizer_that_scales_takes_the_same_step(optimizer):
    trained = []
    for each in (lambda: keras.optimizers.SGD(0.1), optimizer):
        trainer = tiny_trainer(bn_network())
        trainer.compile(each())
        steps(trainer, batches(2, "float64"))
        trained.append(trainer.network)
    assert_same_weights(*trained, atol=1e-7)


@pytest.mark.parametrize("replays", [1, 2])
def test_it_trains(replays):
    network = network_in(HALF)
    trainer = tiny_trainer(network)
    if replays > 1:
        trainer = FreeTrainer(network, method=AT(), attack=trainer.attack, replays=replays)
        trainer.compile(SGD(0.05))
    logs = steps(trainer, [tiny_batch(16)] * 16)
    losses = [log["loss"] for log in logs if np.isfinite(log["loss"])]
    assert len(losses) >= 12  # the first scales may be too large
    assert np.mean(losses[-3:]) < losses[0]
    assert all(v.dtype == "float32" for v in network.trainable_variables)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    network = network_in(HALF)
    trainer = tiny_trainer(network, averaging=EMA)
    trainer.compile(keras.optimizers.LossScaleOptimizer(SGD(0.05), initial_scale=2.0**120))
    before = weights_of(network)
    logs = steps(trainer, batches(2))
    assert [log["loss_scale"] for log in logs] == [2.0**120, 2.0**119]
    for one, other in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(trainer.optimizer.iterations) == 2  # batches: epochs, schedules and averages go by them
    assert all(np.isfinite(w).all() for w in weights_of(trainer.averaged.network))
    trainer.optimizer.dynamic_scale.assign(2.0**10)
    steps(trainer, batches(1))
    assert int(trainer.optimizer.iterations) == 3
    assert any((one != other).any() for one, other in zip(before, weights_of(network), strict=True))


def test_a_replay_that_overflows_does_not_spoil_those_after_it():
    trainer = FreeTrainer(network_in(HALF), method=AT(), attack=PGD(Linf(0.1)), replays=8)
    trainer.compile(keras.optimizers.LossScaleOptimizer(SGD(0.05), initial_scale=2.0**20))
    before = weights_of(trainer.network)
    (log,) = steps(trainer, batches(1))
    assert 2.0**12 < log["loss_scale"] < 2.0**20
    assert np.isfinite(log["loss"])
    assert any((one != other).any() for one, other in zip(before, weights_of(trainer.network), strict=True))


def test_an_average_over_epochs_has_the_last_one_also_where_a_step_was_left_out():
    trainer = tiny_trainer(
        network_in(HALF), averaging=lambda n: SWA(n, epochs=2, start=0.5, statistics="averaged"), steps_per_epoch=2
    )
    trainer.compile(keras.optimizers.LossScaleOptimizer(SGD(0.05), initial_scale=2.0**120))
    steps(trainer, batches(1))
    trainer.optimizer.dynamic_scale.assign(2.0**10)
    steps(trainer, batches(3))
    assert_same_weights(trainer.network, trainer.averaged.network, atol=0)


def test_weight_decay_is_not_scaled():
    taken = []
    for scale in (2.0**4, 2.0**10):
        trainer = tiny_trainer(network_in(HALF), weight_decay=0.5, perturbation=Identity())
        trainer.compile(keras.optimizers.LossScaleOptimizer(SGD(0.05), initial_scale=scale))
        steps(trainer, batches(1))
        taken.append(trainer.network)
    assert_same_weights(*taken, atol=2e-4)


def test_two_replicas_take_the_same_step_as_one():
    trained = []
    for strategy in (tf.distribute.get_strategy(), mirrored(["CPU:0", "CPU:1"])):
        with strategy.scope():
            trainer = tiny_trainer(network_in(HALF), method=AT(attack_in_training_mode=False), perturbation=Identity())
            # BatchNorm over a share of 4 images has gradients that overflow at Keras' first scale, 2^15.
            trainer.compile(keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**12))
        x, y = tiny_batch(8)
        share = 8 // strategy.num_replicas_in_sync

        def values(context, x=x, y=y, share=share):
            first = context.replica_id_in_sync_group * share
            return x[first : first + share], y[first : first + share]

        batch = strategy.experimental_distribute_values_from_function(values)
        step = tf.function(lambda b, s=strategy, t=trainer: s.run(t.train_step, args=(b,)), autograph=False)
        step(batch)
        assert int(trainer.optimizer.iterations.numpy()) == 1
        trained.append([v.numpy() for v in trainer.network.trainable_variables])
    before = network_in(HALF).trainable_variables
    one, two = ([a - b.numpy() for a, b in zip(after, before, strict=True)] for after in trained)
    assert cosine(one, two) > 0.9  # BatchNorm's statistics are those of a share


def test_the_factor_may_be_any_positive_number():
    by, x = Scaled(tf.constant(3.0)), tf.constant([1.0, 2.0])
    np.testing.assert_allclose(gradient_of(lambda x: by.leave(by.enter(x) ** 2), x), [2.0, 4.0], rtol=1e-6)
