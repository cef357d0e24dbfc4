"""A batch in parts is the batch: gradients, searches and replicas agree; BatchNorm couples the images of a part."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_trainer, weights_of

from awp_tf.attacks import PGD
from awp_tf.free import FreeTrainer
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT, MART, TRADES, Standard
from awp_tf.networks.layers import BatchNorm
from awp_tf.perturbations import AWP, RAT, SAM, Identity
from awp_tf.threats import L2, Linf
from awp_tf.training.recipe import Recipe


def after(steps, count, network=None, **settings):
    trainer = tiny_trainer(network, **settings)
    x, y = tiny_batch(count, "float64")
    step = tf.function(trainer.train_step, autograph=False)
    logs = [step((x, y)) for _ in range(steps)]
    return trainer.network, [float(each["loss"]) for each in logs]


CASES = {
    "TRADES-AWP": {},
    "AT-AWP, two steps, in turns": {"method": AT(), "perturbation": AWP(0.02, steps=2), "alternations": 2},
    "MART-SAM, L2": {"method": MART(), "perturbation": SAM(0.05), "attack": PGD(L2(0.5), steps=2)},
    "RAT around AWP": {"perturbation": RAT(0.02, around=AWP(0.02))},
}


@pytest.mark.parametrize(
    ("name", "steps", "count"),
    [("TRADES-AWP", 20, 8), ("TRADES-AWP", 3, 10), ("TRADES-AWP", 3, 3), *((name, 3, 10) for name in list(CASES)[1:])],
)
def test_four_parts_add_up_to_the_batch(name, steps, count, float64):
    whole, losses = after(steps, count, **CASES[name])
    cut, cut_losses = after(steps, count, accumulation=4, **CASES[name])
    assert_same_weights(whole, cut, rtol=0, atol=1e-10)
    np.testing.assert_allclose(losses, cut_losses, rtol=1e-10)


def test_parts_do_to_batch_norm_what_replicas_do(float64):
    """Each is normalised by itself, and running statistics are their mean."""

    def network():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Conv2D(2, 3), BatchNorm(), keras.layers.ReLU(), keras.layers.Flatten()]
        return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Dense(CLASSES)])

    cut, _ = after(2, 8, network(), accumulation=2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        trainer = tiny_trainer(network())
    x, y = tiny_batch(8, "float64")
    data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors((x, y)).unbatch().batch(8))

    @tf.function(autograph=False)
    def step(batch):
        return strategy.run(trainer.train_step, args=(batch,))

    for _ in range(2):
        step(next(iter(data)))
    assert_same_weights(cut, trainer.network, rtol=0, atol=1e-10)
    whole, _ = after(2, 8, network())
    assert max(np.abs(a - b).max() for a, b in zip(weights_of(cut), weights_of(whole), strict=True)) > 1e-6


def test_xla_takes_the_same_step(float64):
    plain, _ = after(2, 8, accumulation=4)
    compiled, _ = after(2, 8, accumulation=4, xla=True)
    assert_same_weights(plain, compiled, rtol=0, atol=1e-10)


def test_one_part_at_a_time_is_seen():
    sizes = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            tf.numpy_function(lambda n: sizes.append(int(n)), [tf.shape(x)[0]], [])
            return x

    inner = tiny_network()
    network = keras.Model(inner.inputs[0], inner(Spy()(inner.inputs[0])))
    trainer = tiny_trainer(network, accumulation=4, method=TRADES())
    sizes.clear()
    trainer.train_step(tiny_batch(8))
    assert set(sizes) == {2}


def test_parts_have_dropout_masks_of_their_own():
    keras.utils.set_random_seed(0)
    parts = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(CLASSES)]
    network = keras.Sequential(parts)
    network.layers[-1].kernel.assign(tf.zeros_like(network.layers[-1].kernel))
    trainer = tiny_trainer(network, method=Standard(), perturbation=Identity(), accumulation=2)
    x = tf.ones([2, *SHAPE])  # at weights of zero the gradients of two labels are opposite: equal masks would cancel
    trainer.train_step((x, tf.constant([0, 1])))
    assert np.abs(network.layers[-1].kernel[:, 0]).max() > 0


@pytest.mark.parametrize("wrong", [0, 1.5, "2"])
def test_parts_are_counted(wrong):
    with pytest.raises(UserError, match="accumulation: expected a whole number >= 1"):
        tiny_trainer(accumulation=wrong)


def test_free_training_has_no_parts():
    with pytest.raises(UserError, match=r"FreeTrainer.accumulation: expected 1, .* received 2"):
        FreeTrainer(tiny_network(), method=AT(), attack=PGD(Linf(0.1)), accumulation=2)
    with pytest.raises(UserError, match=r"Recipe.accumulation: expected 1 with replays, received 2"):
        Recipe(tiny_network, AT(), PGD(Linf(0.1)), lambda epoch: 0.1, replays=2, accumulation=2)
