"""What a GPU must do as well: python -m pytest -m gpu tests/test_gpu.py, on a machine that has one.

A second logical CPU stands for it in all other runs, so that the tests themselves are known to work.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_split, tiny_trainer, weights_of
from test_loss_scale import cosine
from test_trainer import batches, bn_network, steps

from awp_tf.infra.devices import use_gpus
from awp_tf.methods import AT
from awp_tf.networks import preact_resnet18
from awp_tf.perturbations import Identity
from awp_tf.threats import Linf
from awp_tf.training.strategy import mirrored
from tools.official_autoattack import ours

DEVICE = pytest.mark.parametrize("device", ["CPU:1", pytest.param("GPU:0", marks=pytest.mark.gpu)])
TWO = [
    pytest.param(("CPU:0", "CPU:1"), marks=pytest.mark.slow),
    pytest.param(("GPU:0", "GPU:1"), marks=pytest.mark.gpu),
]


@pytest.fixture(autouse=True)
def memory_grows():
    use_gpus(2)


def trained(device, count=2, network=bn_network, **settings):
    """The network after a few steps on a device; on a CPU XLA does not compile unless it is asked to."""
    with tf.device(device):
        trainer = tiny_trainer(network(), **{"xla": False, **settings})
        if hasattr(trainer.optimizer, "dynamic_scale"):
            trainer.optimizer.dynamic_scale.assign(2.0**10)  # the first steps would find that out
        logs = steps(trainer, batches(count, keras.config.floatx()))
    return trainer.network, logs


@pytest.mark.usefixtures("float64")
@DEVICE
@pytest.mark.parametrize("method", [{}, {"method": AT()}], ids=["trades", "at"])
def test_a_step_is_the_same_as_on_a_cpu(device, method):
    here, there = trained("CPU:0", **method), trained(device, **method)
    assert_same_weights(here[0], there[0], atol=1e-9)
    assert here[1][-1]["loss"] == pytest.approx(there[1][-1]["loss"], abs=1e-9)


@pytest.mark.usefixtures("float64")
@DEVICE
def test_xla_changes_nothing(device):
    assert_same_weights(trained(device, xla=True)[0], trained(device, xla=False)[0], atol=1e-9)


@pytest.mark.gpu
def test_xla_compiles_where_there_is_a_gpu():
    trainer = tiny_trainer(bn_network())
    graph = tf.function(trainer.train_step, autograph=False).get_concrete_function(tiny_batch()).graph
    assert "XlaMustCompile" in str(graph.as_graph_def())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("devices", TWO)
def test_two_replicas_take_the_step_of_one(devices):
    if devices[0].startswith("GPU") and len(tf.config.list_logical_devices("GPU")) < 2:
        pytest.skip("one GPU")
    networks = []
    for names in (devices[:1], devices):
        strategy = mirrored(names)
        with strategy.scope():
            trainer = tiny_trainer(tiny_network(), rate=0.05)
        step = tf.function(lambda b, s=strategy, t=trainer: s.run(t.train_step, args=(b,)), autograph=False)
        data = tf.data.Dataset.from_tensors(tiny_batch(8, "float64")).unbatch().batch(8)
        step(next(iter(strategy.experimental_distribute_dataset(data))))
        networks.append([v.numpy() for v in trainer.network.trainable_variables])
    for one, two in zip(*networks, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-10)


@DEVICE
@pytest.mark.parametrize(("precision", "least"), [("mixed_bfloat16", 0.95), ("mixed_float16", 0.99)])
def test_a_step_in_16_bits_goes_the_same_way(device, precision, least):
    moved = []
    for policy in ("float32", precision):
        keras.config.set_dtype_policy(policy)
        before = weights_of(bn_network())
        after = weights_of(trained(device, count=1, perturbation=Identity())[0])
        moved.append([new - old for new, old in zip(after, before, strict=True)])
    assert cosine(*moved) > least


@DEVICE
def test_an_attack_of_evaluation_finds_what_it_finds_on_a_cpu(device):
    network = tiny_network()
    found = []
    for place in ("CPU:0", device):
        with tf.device(place):
            found.append(ours(network, tiny_split(32), "apgd-ce", Linf(0.02), 32)["apgd-ce"][0])
    assert found[0] == found[1]
    assert 0 < found[0] < 1


_TRAIN = """
import sys, hashlib
from awp_tf.infra.devices import choose_kernels, use_gpus
use_gpus(1)
choose_kernels(deterministic=True)
from test_gpu import trained
from helpers import tiny_network, weights_of  # it has maximum pooling
network, _ = trained(sys.argv[1], count=3, xla="auto", network=tiny_network)
print(hashlib.sha256(b"".join(w.tobytes() for w in weights_of(network))).hexdigest())
"""


@pytest.mark.parametrize(
    "device", [pytest.param("CPU:0", marks=pytest.mark.slow), pytest.param("GPU:0", marks=pytest.mark.gpu)]
)
def test_deterministic_kernels_repeat_every_bit(device):
    tests = pathlib.Path(__file__).parent
    line = [sys.executable, "-c", _TRAIN, device]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    run = lambda: subprocess.run(line, capture_output=True, text=True, check=True, env=environment)  # noqa: E731
    digests = {run().stdout.split()[-1] for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.gpu
def test_memory_does_not_grow_from_step_to_step():
    with tf.device("GPU:0"):
        trainer = tiny_trainer(preact_resnet18(width=16, shape=SHAPE, classes=CLASSES))
        steps(trainer, batches(3))
        first = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        steps(trainer, batches(10))
    assert tf.config.experimental.get_memory_info("GPU:0")["peak"] <= 1.1 * first
