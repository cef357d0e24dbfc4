"""A random window of each image, resized: how ImageNet is augmented; a pure function of images and seed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from awp_tf.data.augment import integers, uniform, warp
from awp_tf.infra.errors import UserError
from awp_tf.noise import Seed

_TRIES = 10  # windows that are drawn for an image


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts a window of random area and form, resizes it to the images' own size, and mirrors half of the images.

    Szegedy et al., 2015, drawn as torchvision.transforms.RandomResizedCrop does: ten tries, then the largest window in
    the middle of an allowed form. Bilinear, half-pixel centres; at a window's edge the pixels beyond it take part.

    Attributes:
        scale: The smallest and the largest share of the image's area.
        ratio: The smallest and the largest width / height, in pixels of the images that come in.
        flip: Whether to mirror.
    """

    by_row: ClassVar[bool] = True
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            value = getattr(self, name)
            numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
            if len(numbers) != 2 or not all(isinstance(v, (int, float)) for v in numbers):
                raise UserError(f"RandomResizedCrop.{name}: expected two numbers, received {value!r}.")
            if not 0 < numbers[0] <= numbers[1] <= most:
                within = "0 < smallest <= largest" + (" <= 1" if most == 1 else "")
                raise UserError(f"RandomResizedCrop.{name}: expected {within}, received {value!r}.")

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        (height, width), batch = images.shape[1:3], tf.shape(images)[0]
        rows, columns, top, left = self.windows(seed, batch, height, width)
        down, right = rows / height, columns / width
        x, y = left + right / 2 - 0.5, top + down / 2 - 0.5  # centres of the first output pixel
        if self.flip:
            mirrored = integers(seed.fold(2), [batch, 1], 2)[:, 0] == 1
            x, right = tf.where(mirrored, x + columns - right, x), tf.where(mirrored, -right, right)
        zero = tf.zeros_like(x)
        found = warp(tf.cast(images, tf.float32), [right, zero, x, zero, down, y, zero, zero], "BILINEAR", "NEAREST")
        return tf.cast(tf.round(found) if images.dtype.is_integer else found, images.dtype)

    def windows(self, seed: Seed, batch: int | tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, ...]:
        """Rows, columns, first row and first column of each image's window: whole numbers, float32 [B]."""
        area, form, *corner = tf.unstack(uniform(seed.fold(0), [batch, _TRIES, 4]), axis=2)
        low, high = map(math.log, self.ratio)
        area = height * width * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
        form = tf.exp(low + form * (high - low))
        columns, rows = tf.round(tf.sqrt(area * form)), tf.round(tf.sqrt(area / form))
        fits = (columns >= 1) & (columns <= width) & (rows >= 1) & (rows <= height)
        first = tf.argmax(fits, axis=1)[:, tf.newaxis]
        rows, columns, down, right = (tf.gather(v, first, batch_dims=1)[:, 0] for v in (rows, columns, *corner))
        # The whole image, or of a very wide or high one as much as has an allowed form.
        nearest = min(max(width / height, self.ratio[0]), self.ratio[1])
        most = round(min(height, width / nearest)), round(min(width, height * nearest))
        any_fits = tf.reduce_any(fits, axis=1)
        rows, columns = tf.where(any_fits, rows, float(most[0])), tf.where(any_fits, columns, float(most[1]))
        top = tf.floor(tf.where(any_fits, down * (height - rows + 1), (height - rows) / 2))
        left = tf.floor(tf.where(any_fits, right * (width - columns + 1), (width - columns) / 2))
        return rows, columns, tf.minimum(top, height - rows), tf.minimum(left, width - columns)
