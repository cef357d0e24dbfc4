"""Augmentation of whole batches as the references do it; a pure function of images and seed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Protocol

import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least, not_negative
from awp_tf.noise import ALGORITHM, Seed


class Augment(Protocol):
    """Changes a batch of images [B, H, W, C] at random, keeping shape and type.

    One with an attribute `by_row = True` promises that what it does to an image depends on that image, the seed and the
    image's place in the global batch (seed.first and its row) alone: then each machine reads and changes its own rows
    only. Otherwise every machine makes the whole batch, and takes its rows.
    """

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """The changed images."""
        ...


@dataclasses.dataclass(frozen=True)
class NoAugment:
    """Images as they are."""

    by_row: ClassVar[bool] = True

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """Returns images."""
        return images


@dataclasses.dataclass(frozen=True)
class PadCropFlip:
    """Pads, cuts a random window of the old size, and mirrors half of the images.

    Attributes:
        pad: Pixels added on every side.
        mode: "reflect" (AT on CIFAR-10) or "zero" (TRADES, MART, AT on CIFAR-100).
        flip: Whether to mirror.
    """

    by_row: ClassVar[bool] = True
    pad: int = 4
    mode: str = "reflect"
    flip: bool = True

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("PadCropFlip.pad", self.pad, 0)
        if self.mode not in ("reflect", "zero"):
            raise UserError(f'PadCropFlip.mode: expected "reflect" or "zero", received {self.mode!r}.')

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
        if self.mode == "reflect" and self.pad >= min(height, width):
            raise UserError(
                f"PadCropFlip.pad: expected less than the {min(height, width)} pixels of a side to reflect, received "
                f"{self.pad}; bind a smaller one, or AUGMENT = @NoAugment()."
            )
        kind = "REFLECT" if self.mode == "reflect" else "CONSTANT"
        padded = tf.pad(images, [[0, 0], [self.pad, self.pad], [self.pad, self.pad], [0, 0]], kind)
        offsets = integers(seed.fold(0), [batch, 2], 2 * self.pad + 1)
        rows = offsets[:, :1] + tf.range(height)
        columns = offsets[:, 1:] + tf.range(width)
        if self.flip:
            mirrored = integers(seed.fold(1), [batch, 1], 2) == 1
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Turns each image about its centre by U(-degrees, degrees): nearest pixel, black outside."""

    by_row: ClassVar[bool] = True
    degrees: float = 15.0

    def __post_init__(self) -> None:
        """Raises UserError where degrees is negative."""
        not_negative("Rotate.degrees", self.degrees)

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        turn = uniform(seed, [tf.shape(images)[0]], -1.0, 1.0)
        angle = turn * (self.degrees * math.pi / 180)
        cos, sin, zero = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
        x, y = (images.shape[2] - 1) / 2, (images.shape[1] - 1) / 2
        return warp(images, [cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos, zero, zero])


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Blackens a square of each image, whose centre is anywhere in it; what reaches over the border is cut off.

    DeVries and Taylor, 2017: 16 pixels for CIFAR-10, 8 for CIFAR-100. Black is 0 in [0, 1], as in the code of the AWP
    authors; the paper fills with the mean of normalised images.

    Attributes:
        size: Pixels of a side.
    """

    by_row: ClassVar[bool] = True
    size: int = 16

    def __post_init__(self) -> None:
        """Raises UserError where size makes no sense."""
        at_least("Cutout.size", self.size, 1)

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        side = min(images.shape[1:3])
        if self.size > side:
            raise UserError(
                f"Cutout.size: expected at most the {side} pixels of a side, received {self.size}; bind a smaller one."
            )
        size = tf.fill([tf.shape(images)[0]], self.size)
        return tf.where(random_box(seed, images, size, size), tf.zeros([], images.dtype), images)


@dataclasses.dataclass(frozen=True)
class Chain:
    """One augmentation after the other, each with noise of its own."""

    parts: Sequence[Augment] = ()

    @property
    def by_row(self) -> bool:
        """Whether all parts are."""
        return all(getattr(part, "by_row", False) for part in self.parts)

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        for index, part in enumerate(self.parts):
            images = part(images, seed.fold(index))
        return images


def random_box(seed: Seed, images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Which pixels of each image are in a box of so many rows and columns, int32 [B], with its centre anywhere.

    Returns:
        bool [B, H, W, 1]; a box that reaches over the border is cut off there.
    """
    inside = []
    for axis, lengths in enumerate((rows, columns)):
        side = images.shape[1 + axis]
        first = integers(seed.fold(axis), [tf.shape(images)[0]], side) - lengths // 2
        places = tf.range(side)
        inside.append((places >= first[:, tf.newaxis]) & (places < (first + lengths)[:, tf.newaxis]))
    return inside[0][:, :, tf.newaxis, tf.newaxis] & inside[1][:, tf.newaxis, :, tf.newaxis]


def warp(
    images: tf.Tensor, matrix: Sequence[tf.Tensor], interpolation: str = "NEAREST", outside: str = "CONSTANT"
) -> tf.Tensor:
    """Each pixel (x, y) becomes the one at (a x + b y + c, d x + e y + f): by default the nearest, black outside.

    Args:
        images: [B, H, W, C].
        matrix: a to f, and two zeros, each [B].
        interpolation: "NEAREST" or "BILINEAR".
        outside: "CONSTANT" (black) or "NEAREST" (the border's pixels).
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(matrix, axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode=outside,
    )


def integers(seed: Seed, shape: Sequence[int | tf.Tensor], below: int) -> tf.Tensor:
    """Whole numbers 0..below-1, int32: the rows of the global batch from seed.first on."""
    rows, *others = shape
    every = [seed.first + rows, *others]  # what comes first does not depend on how many follow
    return tf.random.stateless_uniform(every, seed.key, 0, below, dtype=tf.int32, alg=ALGORITHM)[seed.first :]


def uniform(seed: Seed, shape: Sequence[int | tf.Tensor], low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Numbers in [low, high), float32: the rows of the global batch from seed.first on."""
    rows, *others = shape
    every = [seed.first + rows, *others]
    return tf.random.stateless_uniform(every, seed.key, low, high, alg=ALGORITHM)[seed.first :]
