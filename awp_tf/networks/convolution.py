"""Convolutions with PyTorch's padding, and faster forms of those of small images on a CPU.

oneDNN's kernels work along the rows of an image, and rows of 4 or 8 pixels leave most of a register empty: the last two
stages of a network of CIFAR-10 run at a third to a half of the speed of the first. Matrix products have no such rows.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf.networks.layers import CHANNELS_LAST

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity; see winograd
_KERAS_OWN = contextvars.ContextVar("_KERAS_OWN", default=False)
_TILE = 4
_MOST_PIXELS = 64
_FEWEST_CHANNELS = 16


@keras.saving.register_keras_serializable(package="awp_tf")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D; unstrided 3x3 convolutions of small images take a faster form on a CPU, with the same weights."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution alone: inputs [B, H, W, C], kernel [3, 3, C, K], result [B, H, W, K]."""
        return _form(self, inputs)(inputs, tf.convert_to_tensor(kernel))

    def direct(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """As Keras has it."""
        return super().convolution_op(inputs, kernel)


@contextlib.contextmanager
def as_keras_does() -> Iterator[None]:
    """What is traced inside has Keras' own convolutions: a graph that others read, or run on another machine."""
    token = _KERAS_OWN.set(True)
    try:
        yield
    finally:
        _KERAS_OWN.reset(token)


def conv(
    x: Any, filters: int, *, size: int = 3, stride: int = 1, initializer: keras.initializers.Initializer, name: str
) -> Any:
    """A convolution without bias that pads symmetrically.

    Keras' "same" pads a strided convolution on one side only, where PyTorch's padding=1 does both.
    """
    padding = "same"
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D(size // 2, CHANNELS_LAST, name=f"{name}.pad")(x)
        padding = "valid"
    return Conv2D(
        filters, size, stride, padding, CHANNELS_LAST, use_bias=False, kernel_initializer=initializer, name=name
    )(x)


def winograd(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """An unstrided 3x3 convolution, zeros around the image, with a quarter of the multiplications.

    F(4x4, 3x3) of Lavin and Gray (CVPR 2016). A tile's output is a product of polynomials, taken at the points 0,
    +-3/4, +-3/2 and infinity: the error in float32 is a third of that of the usual points (0, +-1, +-2), about that
    of F(2x2, 3x3). Few pixels make the transforms small matrices, zeros at the border included.

    Args:
        x: Images [B, H, W, C]; H and W are multiples of 4.
        kernel: Shape [3, 3, C, K].

    Returns:
        Shape [B, H, W, K].
    """
    _, height, width, channels = x.shape
    filters = kernel.shape[-1]
    into, out, weights = (tf.constant(m, x.dtype) for m in _transforms(height, width))
    products = weights.shape[0]
    # Pixels first, so that each transform is one matrix product.
    pixels = tf.reshape(_swapped(tf.reshape(x, [-1, height * width, channels])), [height * width, -1])
    tiles = tf.reshape(tf.matmul(into, pixels), [products, -1, channels])
    nearby = tf.reshape(tf.matmul(weights, tf.reshape(kernel, [9, -1])), [products, channels, filters])
    made = tf.reshape(tf.matmul(tiles, nearby), [out.shape[1], -1])
    y = _swapped(tf.reshape(tf.matmul(out, made), [height * width, -1, filters]))
    return tf.reshape(y, [-1, height, width, filters])


@tf.custom_gradient
def columns(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """An unstrided 3x3 convolution, zeros around the image, as one matrix product with the neighbours of each pixel.

    Args:
        x: Images [B, H, W, C].
        kernel: Shape [3, 3, C, K].

    Returns:
        Shape [B, H, W, K], and the gradient, which is a convolution of the same form.
    """
    neighbours = _neighbours(x)
    _, height, width, _ = x.shape

    def product(rows: tf.Tensor, taps: tf.Tensor) -> tf.Tensor:
        outputs = taps.shape[-1]
        return tf.reshape(tf.matmul(rows, tf.reshape(taps, [-1, outputs])), [-1, height, width, outputs])

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        backwards = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
        wide = tf.matmul(neighbours, tf.reshape(dy, [-1, kernel.shape[-1]]), transpose_a=True)
        return product(_neighbours(dy), backwards), tf.reshape(wide, kernel.shape)

    return product(neighbours, kernel), gradient


def _form(layer: Conv2D, x: tf.Tensor) -> Any:
    """The fastest form that is known for a layer and inputs [B, H, W, C]."""
    height, width, channels = x.shape[1:]
    small = height and width and height * width <= _MOST_PIXELS and channels >= _FEWEST_CHANNELS
    if _KERAS_OWN.get() or not small or not _unstrided(layer) or tf.config.list_physical_devices("GPU"):
        return layer.direct
    if x.dtype.size == 2 and max(height, width) <= _TILE:  # 16 bits: too few for winograd
        return columns
    if x.dtype.size > 2 and height % _TILE == width % _TILE == 0:
        return winograd
    return layer.direct


def _unstrided(layer: Conv2D) -> bool:
    """Whether it is an unstrided 3x3 convolution with zeros around the image."""
    sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
    return sizes == ((3, 3), (1, 1), (1, 1)) and (layer.groups, layer.padding, layer.data_format) == (
        1,
        "same",
        CHANNELS_LAST,
    )


def _swapped(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [1, 0, 2])


def _neighbours(x: tf.Tensor) -> tf.Tensor:
    """Of each pixel of x [B, H, W, C] its 3x3 neighbours: [B * H * W, 9 * C]."""
    _, height, width, channels = x.shape
    padded = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return tf.reshape(tf.concat(shifted, axis=-1), [-1, 9 * channels])


@functools.cache
def _transforms(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of an image: pixels to tiles' points, products to pixels, and a kernel to its points [36, 9]."""
    points, into, out = _cook_toom()
    rows, columns_ = (_along(size, into, out) for size in (height, width))
    n = len(into)
    pixels = height * width
    down, across = height // _TILE, width // _TILE
    to_tiles = np.kron(rows[0], columns_[0]).reshape(down, n, across, n, pixels)
    to_pixels = np.kron(rows[1], columns_[1]).reshape(pixels, down, n, across, n)
    return (
        to_tiles.transpose(1, 3, 0, 2, 4).reshape(-1, pixels),
        to_pixels.transpose(0, 2, 4, 1, 3).reshape(pixels, -1),
        np.kron(points, points),
    )


def _along(size: int, into: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The transforms of all tiles of a line of pixels, which has a zero at either end."""
    tiles = size // _TILE
    shifts = [np.eye(len(into), size + 2, _TILE * tile)[:, 1:-1] for tile in range(tiles)]
    return np.concatenate([into @ shift for shift in shifts]), np.kron(np.eye(tiles), out)


def _cook_toom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G [6, 3], B^T [6, 6] and A^T [4, 6] in the names of the paper: polynomials at _POINTS and at infinity."""
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    scale = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    kernel = np.vander(points, 3, increasing=True) / np.array(scale)[:, None]
    into = [*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(points)[::-1]]
    out = np.vander(points, _TILE, increasing=True)
    last = np.eye(3)[2:], np.eye(_TILE)[_TILE - 1 :]
    return np.concatenate([kernel, last[0]]), np.array(into), np.concatenate([out, last[1]]).T
