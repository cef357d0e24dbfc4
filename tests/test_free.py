"""Free adversarial training: how many gradients it takes, and what its replays do."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network
from test_trainer import batches, bn_network

from awp_tf.attacks import PGD, Clean, UniformStart, ZeroStart
from awp_tf.free import FreeTrainer
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT, TRADES, Standard
from awp_tf.optimizers import SGD
from awp_tf.perturbations import AWP
from awp_tf.threats import Linf


def free_trainer(network, *, rate=0.1, start=ZeroStart(), **settings):
    attack = PGD(Linf(0.1), relative_step_size=1.0, start=start)
    trainer = FreeTrainer(network, **{"method": AT(), "attack": attack, **settings})
    trainer.compile(SGD(rate, momentum=0.0))
    return trainer


@pytest.mark.parametrize("replays", [1, 4])
def test_a_replay_takes_one_gradient_for_weights_and_images(replays, monkeypatch):
    gradient, counted = tf.GradientTape.gradient, []

    def counting(tape, *arguments, **settings):
        counted.append(1)
        return gradient(tape, *arguments, **settings)

    trainer = free_trainer(tiny_network(), replays=replays)
    monkeypatch.setattr(tf.GradientTape, "gradient", counting)
    trainer.train_step(tiny_batch(8))
    assert len(counted) == replays
    assert int(trainer.optimizer.iterations) == replays


@pytest.mark.usefixtures("float64")
def test_it_is_the_algorithm_of_its_authors():
    ours, theirs, (x, y) = tiny_network(), tiny_network(), tiny_batch(8, "float64")
    free_trainer(ours, replays=3, weight_decay=0.01).train_step((x, y))
    delta = tf.zeros_like(x)
    for _ in range(3):
        seen = x + delta
        with tf.GradientTape() as tape:
            tape.watch(seen)
            loss = tf.reduce_mean(cross_entropy(theirs(seen, training=True), y))
        *gradients, slope = tape.gradient(loss, [*(v.value for v in theirs.trainable_variables), seen])
        for variable, g in zip(theirs.trainable_variables, gradients, strict=True):
            variable.assign(variable - 0.1 * (g + 0.01 * variable))
        delta = tf.clip_by_value(delta + 0.1 * tf.sign(slope), -0.1, 0.1)
        delta = tf.clip_by_value(x + delta, 0, 1) - x
    assert_same_weights(ours, theirs, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [AT(), TRADES()], ids=repr)
def test_two_replicas_equal_one(method):
    make = lambda network, **settings: free_trainer(network, start=UniformStart(), replays=2, **settings)  # noqa: E731
    trained = []
    for count in (1, 2):
        devices = [f"CPU:{i}" for i in range(count)]
        strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
        with strategy.scope():
            trainer = make(tiny_network(), method=method)
            data = tf.data.Dataset.from_tensor_slices(tiny_batch(8, "float64")).batch(8)
            for batch in strategy.experimental_distribute_dataset(data):
                strategy.run(trainer.train_step, args=(batch,))
        trained.append(trainer.network)
    assert_same_weights(*trained, atol=1e-10)


def test_it_learns_and_moves_batch_norm_once_a_replay():
    network = bn_network()
    trainer = free_trainer(network, replays=4, rate=0.05)
    step = tf.function(trainer.train_step, autograph=False)
    losses = [float(step(batch)["loss"]) for batch in [batches(1)[0]] * 10]
    assert losses[-1] < losses[0]
    once, often = (bn_network() for _ in range(2))
    for net, replays in ((once, 1), (often, 3)):
        free_trainer(net, replays=replays, rate=0.0, start=ZeroStart(), attack=PGD(Linf(1e-9))).train_step(
            batches(1)[0]
        )
    start, first, third = (np.asarray(net.non_trainable_variables[0]) for net in (bn_network(), once, often))
    np.testing.assert_allclose(third - start, (first - start) * (1 + 0.9 + 0.81), rtol=1e-3, atol=1e-6)


def test_xla_takes_the_same_step():
    trained = []
    for xla in (False, True):
        network = tiny_network()
        free_trainer(network, replays=2, xla=xla).train_step(tiny_batch(8))
        trained.append(network)
    assert_same_weights(*trained, atol=1e-5)


def test_what_replays_cannot_reuse_is_refused():
    with pytest.raises(UserError, match=r"FreeTrainer.attack: expected PGD .*received Clean\(\)"):
        free_trainer(tiny_network(), attack=Clean())
    with pytest.raises(UserError, match=r"FreeTrainer.perturbation: expected Identity\(\).*received AWP"):
        free_trainer(tiny_network(), perturbation=AWP(0.01))
    for wrong in ({"method": Standard()}, {"alternations": 2}):
        with pytest.raises(UserError, match="expected a method whose loss sees adversarial images, and 1 alternation"):
            free_trainer(tiny_network(), **wrong)
    with pytest.raises(UserError, match=r"FreeTrainer.replays: expected a whole number >= 1"):
        free_trainer(tiny_network(), replays=0)
