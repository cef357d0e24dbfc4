"""Values that the official AutoAttack code gave (fra31/auto-attack, commit a392200), and its test networks."""

import json
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks import Examples
from awp_tf.noise import ImageSeeds, make_seed
from awp_tf.threats import L2, Linf

GOLDEN = json.loads((pathlib.Path(__file__).parent / "autoattack_golden.json").read_text())
APGD, FAB, SQUARE, MISC, FLAGS = (GOLDEN[part] for part in ("apgd", "fab", "sq", "misc", "casc"))
LINEAR = {norm: FAB.pop(f"fab_linear/{norm}") for norm in ("Linf", "L2")}
THREATS = {"Linf": Linf, "L2": L2}


class MLP(NamedTuple):
    """A network with one hidden layer of tanh, drawn by NumPy, with images and the labels it gives them."""

    weights: list
    x: tf.Tensor
    y: np.ndarray

    def __call__(self, x):
        w1, b1, w2, b2 = self.weights
        return tf.tanh((tf.reshape(x, [-1, w1.shape[0]]) - 0.5) @ w1 + b1) @ w2 + b2


def mlp(n, side, hidden, classes, seed, dtype="float64"):
    r = np.random.default_rng(seed)
    size = side * side * 3
    weights = [r.standard_normal((size, hidden)) * 6 / np.sqrt(size), r.standard_normal(hidden) * 0.1]
    weights += [r.standard_normal((hidden, classes)) * 2 / np.sqrt(hidden), r.standard_normal(classes) * 0.1]
    x = r.random((n, side, side, 3))
    network = MLP([tf.constant(w, dtype) for w in weights], tf.constant(x, dtype), np.zeros(n, int))
    return network._replace(y=np.argmax(network(network.x), 1))


def examples_of(network, labels=None, rank=2):
    """The examples of network's images, each aimed at its class of this rank."""
    labels = network.y if labels is None else labels
    order = np.argsort(-np.asarray(network(network.x)), 1)
    n = len(labels)
    return Examples(
        network.x, tf.constant(labels, tf.int32), tf.constant(order[:, rank - 1], tf.int32), tf.range(n, dtype=tf.int64)
    )


def seeds_of(examples, seed=0):
    return ImageSeeds(make_seed(seed).key, examples.image)


def checksum(x_adv, x):
    """sum over j of cos(j) (x_adv - x)_j, for each image."""
    difference = np.reshape(np.asarray(x_adv) - np.asarray(x), (len(x), -1))
    return difference @ np.cos(np.arange(difference.shape[1]))
