"""Batches as a pure function of (seed, step): nothing to save, and any step can come first."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from awp_tf.data.augment import Augment, NoAugment
from awp_tf.data.mixing import Mix, NoMix
from awp_tf.data.splits import Split, evenly
from awp_tf.infra.errors import UserError, at_least
from awp_tf.noise import DATA, MIX, make_seed

Rows = tuple[tf.Tensor, tf.Tensor]  # images and labels


@dataclasses.dataclass(frozen=True)
class Batches:
    """Training batches: shuffled anew every epoch, augmented, in [0, 1].

    The last batch of an epoch is smaller. Of it, as many images as the replicas cannot share evenly
    (fewer than there are replicas) sit out that epoch.

    Attributes:
        split: Images and labels.
        batch_size: Over all replicas together.
        augment: What is done to a batch.
        seed: What order and augmentation depend on.
        replicas: How many share a batch.
        dtype: Of the images that come out.
        mix: Done to images in [0, 1] and their labels, after augment.
        classes: How many labels there are, for a mix.

    Example:
        >>> from awp_tf.data import Batches, digits
        >>> batches = Batches(digits().train, batch_size=64)
        >>> x, y = next(iter(batches.dataset(0, 1)))  # the batch of step 0
        >>> x.shape.as_list(), batches.steps_per_epoch
        ([64, 8, 8, 1], 23)
    """

    split: Split
    batch_size: int
    augment: Augment = NoAugment()
    seed: int = 0
    replicas: int = 1
    dtype: str = "float32"
    mix: Mix = NoMix()
    classes: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where the batch fits neither the data nor the replicas."""
        at_least("batch_size", self.batch_size, 1)
        if self.batch_size % self.replicas:
            raise UserError(
                f"batch_size: expected a multiple of the {self.replicas} devices that share it, received "
                f"{self.batch_size}; take another, or other devices (train.devices)."
            )
        if self.batch_size > len(self.split):
            raise UserError(
                f"batch_size: expected at most the {len(self.split)} training images, received {self.batch_size}."
            )
        # What does not fit the images says so here, before anything is written.
        self._prepare(tf.constant(self.split.images[:1]), tf.constant(self.split.labels[:1]), tf.constant(0, tf.int64))

    @property
    def identity(self) -> dict[str, object]:
        """What a run remembers of images that its source does not hold."""
        return {}

    @property
    def remark(self) -> str:
        """What the heading of a run says of images that the source does not hold: nothing, or a further line."""
        return ""

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch uses."""
        return len(self.split) - len(self.split) % self.batch_size % self.replicas

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return -(-self.images_per_epoch // self.batch_size)

    def images_before(self, step: int) -> int:
        """How many images the steps 0..step-1 use."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        return epoch * self.images_per_epoch + turn * self.batch_size

    def dataset(self, start: int, stop: int) -> tf.data.Dataset:
        """The batches of steps start..stop-1: (images [B, H, W, C], labels [B], or [B, K] where a mix changes them)."""
        make = self._maker()
        steps = tf.data.Dataset.range(start, stop)
        whole = steps.map(lambda step: make(step, self._places(step)), num_parallel_calls=2, deterministic=True)
        return whole.prefetch(2)

    def shares(self, start: int, stop: int, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
        """What the replicas of one of several machines see of the same batches: step by step, one share after another.

        Args:
            start: The first step.
            stop: The one after the last.
            worker: Which of the machines, each of which has as many of the replicas.
            workers: How many there are.
        """
        make, local = self._maker(), self.replicas // workers

        def own(step: tf.Tensor) -> Rows:
            places = self._places(step)
            size = tf.size(places) // workers
            mine = slice(worker * size, (worker + 1) * size)
            if self._by_row:  # nothing of the others' rows is read
                rows = make(step, places[mine])
            else:
                images, labels = make(step, places)
                rows = images[mine], labels[mine]
            return tf.nest.map_structure(lambda t: _cut(t, local), rows)

        steps = tf.data.Dataset.range(start, stop)
        return steps.map(own, num_parallel_calls=2, deterministic=True).unbatch().prefetch(2 * local)

    def _maker(self) -> Callable[[tf.Tensor, tf.Tensor], Rows]:
        """Makes the rows at some places of the batch of a step: all of them, or (where _by_row) one machine's."""
        read = self._reader()
        return lambda step, places: self._prepare(*read(step, places), step, places[0])

    def _reader(self) -> Callable[[tf.Tensor, tf.Tensor], Rows]:
        """Reads the images at some places of the batch of a step, as they are stored, and their labels."""
        rows = rows_of(self.split)
        return lambda step, places: rows(tf.gather(self._indices(step), places))

    def _prepare(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, first: tf.Tensor | int = 0) -> Rows:
        """Images as they are stored and their labels, augmented and mixed for step; the first's place in the batch."""
        seeds = (make_seed(self.seed, purpose, step)._replace(first=first) for purpose in (DATA, MIX))
        pixels = to_pixels(self.augment(images, next(seeds)), self.dtype)
        return self.mix(pixels, labels, self.classes, next(seeds))

    @property
    def _by_row(self) -> bool:
        """Whether an image's augmentation does not depend on the others of its batch."""
        return all(getattr(part, "by_row", False) for part in (self.augment, self.mix))

    def _places(self, step: tf.Tensor) -> tf.Tensor:
        """0..B-1: the last batch of an epoch is smaller."""
        first = step % self.steps_per_epoch * self.batch_size
        return tf.range(tf.cast(tf.minimum(self.images_per_epoch - first, self.batch_size), tf.int32))

    def _indices(self, step: tf.Tensor) -> tf.Tensor:
        """Which images step uses: its share of a fresh permutation of all images."""
        epoch, turn = step // self.steps_per_epoch, step % self.steps_per_epoch
        first = turn * self.batch_size
        places = tf.range(first, tf.minimum(first + self.batch_size, self.images_per_epoch))
        seed = tf.stack([tf.cast(self.seed, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(places, seed, len(self.split) - 1)


def _cut(rows: tf.Tensor, parts: int) -> tf.Tensor:
    """[B, ...] as [parts, B / parts, ...]."""
    shape = tf.shape(rows)
    return tf.reshape(rows, tf.concat([[parts, shape[0] // parts], shape[1:]], axis=0))


def ordered(split: Split, batch_size: int, dtype: str = "float32") -> tf.data.Dataset:
    """Split in its own order, not augmented, as (images in [0, 1], labels) batches.

    Example:
        >>> from awp_tf.data import digits, ordered
        >>> [len(y) for x, y in ordered(digits().test, 100)]
        [100, 100, 100, 60]
    """
    rows = rows_of(split)

    def batch(first: tf.Tensor) -> Rows:
        images, labels = rows(tf.range(first, tf.minimum(first + batch_size, len(split))))
        return to_pixels(images, dtype), labels

    return tf.data.Dataset.range(0, len(split), batch_size).map(batch).prefetch(2)


def rows_of(split: Split) -> Callable[[tf.Tensor], Rows]:
    """Reads images and labels at some places, int64 [B], from where they are: TensorFlow gets no copy of them all."""
    image_type, shape = tf.as_dtype(split.images.dtype), split.images.shape[1:]

    def read(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(split.images[index]), split.labels[index]

    def rows(index: tf.Tensor) -> Rows:
        images, labels = tf.numpy_function(read, [index], [image_type, tf.int32], stateful=False)
        return tf.ensure_shape(images, [None, *shape]), tf.ensure_shape(labels, [None])

    return rows


def spread(split: Split, count: int | None) -> Split:
    """At most count images, evenly spread over a split, always the same; None is all."""
    if count is None or count >= len(split):
        return split
    return split.take(evenly(len(split), count))


def hold_out(split: Split, count: int | float | None, seed: int = 0) -> tuple[Split, Split]:
    """(What remains, what is held out for validation), drawn by a seeded permutation.

    Args:
        split: All training images.
        count: How many to hold out: a whole number, a fraction below 1, or None for 1,000 or a tenth,
            whichever is less.
        seed: What the draw depends on; its own, so that runs with other seeds share the split.

    Raises:
        UserError: Nothing, or everything, would be held out.
    """
    total = len(split)
    if count is None:
        count = min(1000, max(1, round(0.1 * total)))
    elif isinstance(count, float) and 0 < count < 1:
        count = round(count * total)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < total:
        raise UserError(
            f"validation: expected a whole number between 1 and {total - 1} (there are {total} images), or a fraction "
            f"below 1, received {count!r}."
        )
    order = np.random.RandomState(seed).permutation(total)
    return split.take(np.sort(order[int(count) :])), split.take(np.sort(order[: int(count)]))


def to_pixels(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """Images in [0, 1]."""
    if images.dtype == tf.uint8:
        return tf.cast(images, dtype) / 255
    return tf.cast(images, dtype)
