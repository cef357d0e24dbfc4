"""What several tests build."""

import absl.flags
import gin
import keras
import numpy as np
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.data import Split
from awp_tf.methods import TRADES
from awp_tf.networks import small_cnn
from awp_tf.optimizers import SGD
from awp_tf.perturbations import AWP
from awp_tf.threats import Linf
from awp_tf.trainer import RobustTrainer

SHAPE, CLASSES = (8, 8, 1), 4


def tiny_network(seed=0, **settings):
    keras.utils.set_random_seed(seed)
    return small_cnn(shape=SHAPE, classes=CLASSES, width=4, **settings)


def tiny_split(count=40, seed=0):
    """Images whose class is the brightest quarter of rows, so that they can be learnt."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = rng.uniform(0, 0.5, (count, *SHAPE)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 0.5
    return Split(images, labels)


def tiny_batch(count=8, dtype="float32", seed=0):
    split = tiny_split(count, seed)
    return tf.constant(split.images, dtype), tf.constant(split.labels)


def tiny_trainer(network=None, *, rate=0.1, **settings):
    """TRADES-AWP with PGD-2 unless settings say otherwise."""
    settings = {
        "method": TRADES(),
        "attack": PGD(Linf(0.1), steps=2, relative_step_size=0.5),
        "perturbation": AWP(0.02),
        "weight_decay": 5e-4,
        **settings,
    }
    trainer = RobustTrainer(network or tiny_network(), **settings)
    trainer.compile(SGD(rate))
    return trainer


def weights_of(network):
    return [np.asarray(w) for w in network.get_weights()]


def assert_same_weights(first, second, **tolerance):
    for one, other in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 0, "atol": 0, **tolerance})


def read_npz(path):
    """All arrays of an .npz file, which is closed again."""
    with np.load(path) as arrays:
        return dict(arrays)


def run_command(command, *flags):
    """A command of pipelines in this process, as if nothing had been run before."""
    known = absl.flags.FLAGS
    for name in list(known):
        if known[name].present:
            known[name].unparse()
    gin.clear_config()
    known([command.__name__, *flags])
    try:
        command.run([])
    finally:
        gin.clear_config()
        known.unparse_flags()
