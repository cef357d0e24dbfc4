"""Noise that is a pure function of (key, position in the global batch).

A replica draws the noise of the whole global batch and keeps its own rows, so a run gives the same
numbers on one device and on eight. Drawing is cheap beside a forward pass.
"""

from typing import NamedTuple

import tensorflow as tf

# Said outright, or TensorFlow would choose one by device and give other noise under XLA.
ALGORITHM = "philox"

# The first fold of a run's seed, so that no two purposes share noise.
ATTACK, WEIGHTS, DATA, EVALUATION = range(4)


class Seed(NamedTuple):
    """What noise depends on.

    Attributes:
        key: Two integers, shape [2].
        replica: Which share of the global batch is meant, a scalar in 0..replicas-1.
        replicas: How many equal shares the global batch has.
    """

    key: tf.Tensor
    replica: tf.Tensor | int = 0
    replicas: int = 1

    def fold(self, data: int | tf.Tensor) -> "Seed":
        """A seed independent of this one for every value of data."""
        key = tf.random.experimental.stateless_fold_in(self.key, tf.cast(data, tf.int64), alg=ALGORITHM)
        return self._replace(key=key)


def make_seed(seed: int, *path: int | tf.Tensor) -> Seed:
    """The seed of a place in a run; path is for instance a purpose and a step."""
    result = Seed(tf.constant([seed, 0], tf.int64))
    for part in path:
        result = result.fold(part)
    return result


def uniform(seed: Seed, like: tf.Tensor) -> tf.Tensor:
    """U(0, 1) in the shape and dtype of like, [B, ...], in steps of 2^-24."""
    bits = tf.random.stateless_uniform(_global(seed, like), seed.key, None, None, dtype=tf.uint32, alg=ALGORITHM)
    # From the bits by hand: TensorFlow and XLA agree on them, but not on the floats they make of them.
    whole = tf.cast(tf.bitwise.right_shift(_rows(seed, bits), tf.constant(8, tf.uint32)), tf.int32)
    return (tf.cast(whole, like.dtype) + 0.5) * 2.0**-24


def normal(seed: Seed, like: tf.Tensor) -> tf.Tensor:
    """N(0, 1) in the shape and dtype of like, [B, ...], by the inverse of its distribution function."""
    return tf.math.erfinv(2 * uniform(seed, like) - 1) * 2.0**0.5


def _global(seed: Seed, like: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(like)
    return tf.concat([shape[:1] * seed.replicas, shape[1:]], axis=0)


def _rows(seed: Seed, noise: tf.Tensor) -> tf.Tensor:
    batch = tf.shape(noise)[0] // seed.replicas
    start = batch * tf.cast(seed.replica, batch.dtype)
    return noise[start : start + batch]
