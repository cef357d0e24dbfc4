"""Noise that is a pure function of (key, position in the global batch).

In training a replica draws its own rows of the global batch's noise, so a run gives the same numbers on
one device and on eight (Seed). In evaluation every image has noise of its own (ImageSeeds). Drawing is
cheap beside a forward pass.
"""

from typing import NamedTuple, Protocol, Self

import tensorflow as tf

# Said outright, or TensorFlow would choose one by device and give other noise under XLA.
ALGORITHM = "philox"
_PHILOX = 1  # its number in TensorFlow's operations
_MIXING_KEY = [0x02461E293EC8F720]  # of TensorFlow's stateless_random_ops

# The first fold of a run's seed, so that no two purposes share noise.
ATTACK, WEIGHTS, DATA, EVALUATION, EXTRA, MIX = range(6)


class Seed(NamedTuple):
    """What noise depends on.

    Attributes:
        key: Two integers, shape [2].
        first: The place of the first row in the global batch, a scalar.
    """

    key: tf.Tensor
    first: tf.Tensor | int = 0

    def fold(self, data: int | tf.Tensor) -> "Seed":
        """A seed independent of this one for every value of data."""
        return self._replace(key=_fold(self.key, data))

    def bits(self, like: tf.Tensor) -> tf.Tensor:
        """Random uint32 in the shape of like, [B, ...]: the rows of the global batch from `first` on."""
        shape = tf.shape(like)
        size, row = tf.size(like), tf.reduce_prod(shape[1:])
        before = tf.cast(self.first, tf.int64) * tf.cast(row, tf.int64)
        # Philox gives four numbers for each value of its counter, which is moved past the rows before.
        begin = tf.cast(before % 4, tf.int32)
        bits = _bits(tf.stack([size + 3]), self.key, skip=before // 4)
        own = tf.slice(bits, [begin], [size])  # XLA takes a beginning that it does not know, but no such end
        return tf.ensure_shape(tf.reshape(own, shape), like.shape)


class ImageSeeds(NamedTuple):
    """Seeds by image, so that its noise does not depend on the batch it is in.

    Attributes:
        key: Two integers, shape [2].
        image: The place of each image in its data set, int64, shape [B].
    """

    key: tf.Tensor
    image: tf.Tensor

    def fold(self, data: int | tf.Tensor) -> "ImageSeeds":
        """Seeds independent of these for every value of data."""
        return self._replace(key=_fold(self.key, data))

    def bits(self, like: tf.Tensor) -> tf.Tensor:
        """Random uint32 in the shape of like, [B, ...], each row its image's own."""
        shape = tf.shape(like)[1:]

        def row(image: tf.Tensor) -> tf.Tensor:
            return tf.bitcast(_bits(shape, _fold(self.key, image)), tf.int32)  # of uint32 a GPU can keep no lists

        rows = tf.bitcast(tf.map_fn(row, self.image, fn_output_signature=tf.int32), tf.uint32)
        return tf.ensure_shape(rows, like.shape)


class Seeded(Protocol):
    """Where noise comes from: Seed or ImageSeeds."""

    def fold(self, data: int | tf.Tensor) -> Self:
        """Noise independent of this one for every value of data."""
        ...

    def bits(self, like: tf.Tensor) -> tf.Tensor:
        """Random uint32 in the shape of like, [B, ...]."""
        ...


def make_seed(seed: int, *path: int | tf.Tensor) -> Seed:
    """The seed of a place in a run; path is for instance a purpose and a step.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf import noise
        >>> like = tf.zeros([2])
        >>> same = noise.uniform(noise.make_seed(0, 1), like) == noise.uniform(noise.make_seed(0, 1), like)
        >>> other = noise.uniform(noise.make_seed(0, 1), like) == noise.uniform(noise.make_seed(0, 2), like)
        >>> bool(tf.reduce_all(same)), bool(tf.reduce_any(other))
        (True, False)
    """
    result = Seed(tf.constant([seed, 0], tf.int64))
    for part in path:
        result = result.fold(part)
    return result


def uniform(seed: Seeded, like: tf.Tensor) -> tf.Tensor:
    """U(0, 1) in the shape and dtype of like, [B, ...], in steps of 2^-23: 24 bits would round up to 1 in float32."""
    # From the bits by hand: TensorFlow and XLA agree on them, but not on the floats they make of them.
    whole = tf.cast(tf.bitwise.right_shift(seed.bits(like), tf.constant(9, tf.uint32)), tf.int32)
    return tf.cast((tf.cast(whole, _wide(like)) + 0.5) * 2.0**-23, like.dtype)


def normal(seed: Seeded, like: tf.Tensor) -> tf.Tensor:
    """N(0, 1) in the shape and dtype of like, [B, ...], by the inverse of its distribution function."""
    wide = tf.cast(like, _wide(like))
    return tf.cast(tf.math.erfinv(2 * uniform(seed, wide) - 1) * 2.0**0.5, like.dtype)


def _wide(like: tf.Tensor) -> tf.DType:
    """In which noise is made: 16 bits hold no count of 23 bits, and in float16 none above 65,504."""
    return like.dtype if like.dtype == tf.float64 else tf.float32


def _fold(key: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(key, tf.cast(data, tf.int64), alg=ALGORITHM)


def _bits(shape: tf.Tensor, key: tf.Tensor, skip: tf.Tensor | int = 0) -> tf.Tensor:
    """What tf.random.stateless_uniform gives for philox, from a later value of the counter on."""
    # The seed is mixed as TensorFlow does for a chosen algorithm; its own operation for that chooses by device.
    mixed = tf.bitcast(tf.reshape(_philox([4], _MIXING_KEY, tf.cast(key, tf.uint64)), [2, 2]), tf.uint64)
    return _philox(shape, mixed[:1], tf.stack([tf.cast(skip, tf.uint64), mixed[1]]))


def _philox(shape: tf.Tensor | list[int], key: tf.Tensor | list[int], counter: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape, key=tf.cast(key, tf.uint64), counter=counter, alg=_PHILOX, dtype=tf.uint32
    )
