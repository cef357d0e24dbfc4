"""Replicas that add up as GPUs do: what goes together is packed into one, by collectives.

On CPUs the project adds up on one device (training.strategy.mirrored), and so do all other tests. TensorFlow's own
choice on several devices is another one, which is tried here on two slices of the CPU, in a process of its own: a
second strategy would meet the collectives of the first.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHAPE, read_npz, tiny_split, tiny_trainer, weights_of
from test_trainer import METHODS, bn_network

from awp_tf.averaging import EMA
from awp_tf.data import Batches
from awp_tf.perturbations import AWP, Identity
from awp_tf.training.strategy import mirrored


def logits_in_16_bits():
    """A network of a person's own that does not know that logits want 32 bits."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv1")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name="linear")(keras.layers.Flatten()(x)))


CASES = {  # (policy, network, settings)
    "trades_awp": ("float64", bn_network, METHODS["trades"]),
    "m_sharpness": ("float64", bn_network, {**METHODS["at"], "m_sharpness": True}),
    "synchronized": ("float64", lambda: bn_network(synchronized=True), METHODS["trades"]),
    "ema": ("float64", bn_network, {**METHODS["mart"], "averaging": EMA}),
    "xla": ("float64", bn_network, {**METHODS["trades"], "xla": True}),
    "bfloat16": ("mixed_bfloat16", logits_in_16_bits, METHODS["standard"]),
    "float16": ("mixed_float16", bn_network, {**METHODS["standard"], "perturbation": Identity()}),
}


def train(strategy, name):
    """Losses and weights, also of the average, after batches of 12, 12 and 4 images."""
    policy, network, settings = CASES[name]
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)
    with strategy.scope():
        trainer = tiny_trainer(network(), **{"perturbation": AWP(0.02), "rate": 0.01, **settings})
        data = Batches(tiny_split(28), 12, replicas=2, dtype=keras.config.floatx()).dataset(0, 4)
        data = strategy.experimental_distribute_dataset(data)
        run = lambda batch: strategy.run(trainer.train_step, args=(batch,))  # noqa: E731
        step = tf.function(run, input_signature=[data.element_spec], autograph=False)
        losses = [strategy.experimental_local_results(step(batch)["loss"])[0].numpy() for batch in data]
    return {
        "losses": np.array(losses, "float64"),
        **_named(trainer.network),
        **_named(trainer.averaged.network, "mean "),
    }


def _named(network, prefix=""):
    return {f"{prefix}{number}": value for number, value in enumerate(weights_of(network))}


def save(folder):
    """What the process of its own does."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name in CASES:
        np.savez(f"{folder}/{name}.npz", **train(strategy, name))
    print(type(strategy.extended._get_cross_device_ops(tf.zeros([]))).__name__)


@pytest.fixture(scope="module")
def by_collectives(tmp_path_factory):
    folder, tests = tmp_path_factory.mktemp("collectives"), pathlib.Path(__file__).parent.parent
    path = os.pathsep.join(map(str, (tests.parent, tests, tests / "training")))
    code = f"import conftest, test_collectives; test_collectives.save({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "CollectiveAllReduce"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_collectives_add_up_is_what_one_device_adds_up(name, by_collectives):
    found, expected = read_npz(by_collectives / f"{name}.npz"), train(mirrored(("CPU:0", "CPU:1")), name)
    assert set(found) == set(expected)
    assert np.isfinite(found["losses"]).all()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-12, err_msg=key)
