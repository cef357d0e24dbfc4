"""The worst weights of each replica's own share (m-sharpness), in place of those of the whole batch."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_trainer, weights_of

from awp_tf import replicas
from awp_tf.attacks import Clean
from awp_tf.methods import Standard
from awp_tf.perturbations import AWP

SETTINGS = {"method": Standard(), "attack": Clean(), "weight_decay": 0.0}


def step_on_two(x, y, **settings):
    """One step on two replicas; the trainer, and its logs on each."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        trainer = tiny_trainer(**{**SETTINGS, **settings})
        data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((x, y)).batch(len(y)))
        logs = tf.function(lambda batch: strategy.run(trainer.train_step, args=(batch,)), autograph=False)(
            next(iter(data))
        )
    return trainer, {name: strategy.experimental_local_results(value) for name, value in logs.items()}


def step_alone(x, y, **settings):
    trainer = tiny_trainer(**{**SETTINGS, **settings})
    tf.function(trainer.train_step, autograph=False)((x, y))
    return trainer


def change(before, trainer):
    return [after - old for after, old in zip(weights_of(trainer.network), before, strict=True)]


@pytest.mark.usefixtures("float64")
def test_each_replica_descends_from_the_worst_weights_of_its_own_share():
    x, y = tiny_batch(8, "float64")
    before = weights_of(tiny_trainer(**SETTINGS).network)
    trainer, logs = step_on_two(x, y, m_sharpness=True)
    halves = [change(before, step_alone(x[rows], y[rows])) for rows in (slice(4), slice(4, 8))]
    for own, one, other in zip(change(before, trainer), *halves, strict=True):
        np.testing.assert_allclose(own, (one + other) / 2, rtol=0, atol=1e-12)
    assert all(float(first) == float(second) for first, second in logs.values())
    whole, _ = step_on_two(x, y)
    assert_same_weights(whole.network, step_alone(x, y).network, atol=1e-12)
    difference = [
        np.abs(a - b).max() for a, b in zip(weights_of(whole.network), weights_of(trainer.network), strict=True)
    ]
    assert max(difference) > 1e-6


def test_it_saves_a_reduction_of_all_gradients_a_step_of_the_search(monkeypatch):
    x, y = tiny_batch(8)
    reduced = []
    original = replicas._reduce
    monkeypatch.setattr(replicas, "_reduce", lambda op, values: reduced.append(len(values)) or original(op, values))
    counts = {}
    for m_sharpness in (False, True):
        reduced.clear()
        trainer, _ = step_on_two(x, y, m_sharpness=m_sharpness, perturbation=AWP(0.02, steps=2))
        counts[m_sharpness] = [n for n in reduced if n == len(trainer.network.trainable_variables)]
    assert len(counts[False]) - len(counts[True]) == 2 * 2  # two steps, traced on two replicas
