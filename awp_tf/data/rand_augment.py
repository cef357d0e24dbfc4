"""RandAugment: random operations of one strength; a pure function of images and seed.

Keras' layer of this name draws its operations once for a whole batch, takes no seed, and turns images by up to half a
circle, to one side only. Operations and ranges here are those of torchvision.transforms.RandAugment, with the
pixels of Pillow.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import tensorflow as tf

from awp_tf.data.augment import integers, warp
from awp_tf.infra.errors import UserError, at_least
from awp_tf.noise import Seed

STRONGEST = 30
_DEGREE = 0.017453292519943295


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Does `operations` of 14 operations to each image, drawn anew for each, one after the other.

    Cubuk et al., 2020 (N and M). Outside of a moved image is black; of images that have not 3 channels, colour stays.

    Attributes:
        operations: How many.
        magnitude: How strong, 0 to 30.
    """

    by_row: ClassVar[bool] = True
    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("RandAugment.operations", self.operations, 1)
        at_least("RandAugment.magnitude", self.magnitude, 0)
        if self.magnitude > STRONGEST:
            raise UserError(f"RandAugment.magnitude: expected at most {STRONGEST}, received {self.magnitude}.")

    def __call__(self, images: tf.Tensor, seed: Seed) -> tf.Tensor:
        """See Augment."""
        whole = images.dtype.is_integer
        pixels = tf.cast(images, tf.float32) * (1.0 if whole else 255.0)
        for turn in range(self.operations):
            pixels = self._once(pixels, seed.fold(turn))
        pixels = tf.clip_by_value(pixels, 0.0, 255.0)
        return tf.cast(tf.round(pixels) if whole else pixels / 255.0, images.dtype)

    def _once(self, pixels: tf.Tensor, seed: Seed) -> tf.Tensor:
        """One operation on each image, forwards or backwards: each is done to those that drew it."""
        count = tf.shape(pixels)[0]
        drawn = integers(seed.fold(0), [count], len(OPERATIONS))
        sign = tf.cast(2 * integers(seed.fold(1), [count], 2) - 1, tf.float32)
        rows, results = [], []
        for number, operation in enumerate(OPERATIONS.values()):
            rows.append(tf.where(drawn == number)[:, 0])
            its = tf.ensure_shape(tf.gather(pixels, rows[-1]), [None, *pixels.shape[1:]])
            results.append(operation(its, self.magnitude / STRONGEST, tf.gather(sign, rows[-1])))
        return tf.ensure_shape(tf.dynamic_stitch([tf.cast(r, tf.int32) for r in rows], results), pixels.shape)


def _affine(images: tf.Tensor, *numbers: tf.Tensor | float) -> tf.Tensor:
    """Pillow's affine transform: (a x + b y + c, d x + e y + f) of pixels' centres; a to f are [B] or one number."""
    a, b, c, d, e, f = [tf.broadcast_to(tf.cast(v, tf.float32), [tf.shape(images)[0]]) for v in numbers]
    zero = tf.zeros_like(a)
    return warp(images, [a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, zero, zero])


def _identity(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return images


def _shear_x(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _affine(images, 1, 0.3 * strength * sign, 0, 0, 1, 0)


def _shear_y(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _affine(images, 1, 0, 0, 0.3 * strength * sign, 1, 0)


def _translate_x(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _affine(images, 1, 0, sign * int(150 / 331 * images.shape[2] * strength), 0, 1, 0)


def _translate_y(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _affine(images, 1, 0, 0, 0, 1, sign * int(150 / 331 * images.shape[1] * strength))


def _rotate(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    angle = 30 * _DEGREE * strength * sign
    cos, sin, x, y = tf.cos(angle), tf.sin(angle), images.shape[2] / 2, images.shape[1] / 2
    return _affine(images, cos, -sin, x - x * cos + y * sin, sin, cos, y - x * sin - y * cos)


def _away_from(images: tf.Tensor, dull: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """What Pillow's enhancements do: dull at a factor of 0, images at 1, more of what distinguishes them above."""
    factor = (1 + 0.9 * strength * sign)[:, None, None, None]
    return tf.clip_by_value(dull + factor * (images - dull), 0.0, 255.0)


def _brightness(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _away_from(images, tf.zeros_like(images), strength, sign)


def _color(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return _away_from(images, _gray(images), strength, sign) if images.shape[-1] == 3 else images


def _contrast(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(_gray(images), axis=[1, 2, 3], keepdims=True)
    return _away_from(images, mean * tf.ones_like(images), strength, sign)


def _sharpness(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """The border has too few neighbours and stays."""
    height, width, channels = images.shape[1:]
    weights = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[:, :, None, None] / 13
    smooth = tf.nn.depthwise_conv2d(images, tf.tile(weights, [1, 1, channels, 1]), [1, 1, 1, 1], "SAME")
    inner = tf.pad(tf.ones([1, max(height - 2, 0), max(width - 2, 0), 1]), [[0, 0], [1, 1], [1, 1], [0, 0]])
    return _away_from(images, tf.where(inner[:, :height, :width] > 0, smooth, images), strength, sign)


def _posterize(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    lost = 2.0 ** round(4 * strength)
    return tf.floor(images / lost) * lost


def _solarize(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    return tf.where(images >= 255 * (1 - strength), 255 - images, images)


def _auto_contrast(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Each channel from 0 to 255."""
    low, high = (f(images, axis=[1, 2], keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    return tf.where(high > low, (images - low) * tf.math.divide_no_nan(255.0, high - low), images)


def _equalize(images: tf.Tensor, strength: float, sign: tf.Tensor) -> tf.Tensor:
    """Each channel's values by their ranks, as Pillow counts them."""
    count, channels = tf.shape(images)[0], images.shape[-1]
    values = tf.cast(images, tf.int32)
    place = tf.reshape(tf.range(count * channels), [count, 1, 1, channels])
    bins = tf.math.bincount(tf.reshape(values + 256 * place, [-1]), minlength=256 * count * channels)
    bins = tf.reshape(bins, [count * channels, 256])
    present = tf.cast(bins > 0, tf.int32)
    last = 255 - tf.argmax(present[:, ::-1], axis=1, output_type=tf.int32)
    step = (tf.reduce_sum(bins, axis=1) - tf.gather(bins, last, batch_dims=1)) // 255
    ranks = (step[:, None] // 2 + tf.cumsum(bins, axis=1, exclusive=True)) // tf.maximum(step, 1)[:, None]
    new = tf.gather(tf.reshape(tf.minimum(ranks, 255), [-1]), values + 256 * place)
    changes = tf.reshape((step > 0) & (tf.reduce_sum(present, axis=1) > 1), [count, 1, 1, channels])
    return tf.where(changes, tf.cast(new, tf.float32), images)


def _gray(images: tf.Tensor) -> tf.Tensor:
    """[B, H, W, 1], by the weights of ITU-R 601-2."""
    if images.shape[-1] != 3:
        return tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.reduce_sum(images * tf.constant([0.299, 0.587, 0.114]), axis=-1, keepdims=True)


OPERATIONS: dict[str, Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]] = {
    "identity": _identity,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
}
