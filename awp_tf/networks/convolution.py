"""Convolutions with PyTorch's padding, and faster forms of those of small images on a CPU.

oneDNN's kernels work along the rows of an image, and rows of 4 or 8 pixels leave part of a register empty: the last two
stages of a network of CIFAR-10 run at a quarter to three quarters of the speed of the first (docs/results.md, Speed).
Matrix products have no such rows.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from awp_tf.networks.layers import CHANNELS_LAST
from awp_tf.prepared import ready_of

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity; see winograd
_KERAS_OWN = contextvars.ContextVar("_KERAS_OWN", default=False)
_TILE = 4
_PRODUCTS = (_TILE + 2) ** 2
_MOST_PIXELS = 64
_FEWEST_CHANNELS = 16


class _Form(NamedTuple):
    """A way to compute a convolution.

    Attributes:
        apply: Of inputs [B, H, W, C] and what prepare made, outputs [B, H, W, K].
        prepare: Of a kernel [3, 3, C, K], what depends on nothing else.
    """

    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    prepare: Callable[[tf.Tensor], tf.Tensor] = lambda kernel: kernel


@keras.saving.register_keras_serializable(package="awp_tf")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D; unstrided 3x3 convolutions of small images take a faster form on a CPU, with the same weights."""

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights, and notes the size of images."""
        super().build(input_shape)
        self._images = tuple(input_shape[1:])

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution alone: inputs [B, H, W, C], kernel [3, 3, C, K], result [B, H, W, K]."""
        form = _form(self, tuple(inputs.shape[1:]), inputs.dtype)
        ready_for, ready = ready_of(self) or (_UNPREPARED, kernel)
        if ready_for != form:
            ready = form.prepare(tf.convert_to_tensor(kernel)) if form else kernel
        return form.apply(inputs, ready) if form else super().convolution_op(inputs, ready)

    def prepared(self, kernel: tf.Tensor) -> tuple[_Form | None, tf.Tensor] | None:
        """What calls with images of the size that it was built for make of its kernel; None where that is nothing."""
        form = _form(self, self._images, self.compute_dtype)
        # Constants stay what they are where they can: oneDNN keeps those in the order that it likes best.
        if form is None and not tf.is_symbolic_tensor(kernel):
            return None
        kernel = tf.cast(kernel, self.compute_dtype)
        return form, form.prepare(kernel) if form else kernel


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


def winograd(x: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """An unstrided 3x3 convolution, zeros around the image, with a quarter of the multiplications.

    F(4x4, 3x3) of Lavin and Gray (CVPR 2016). A tile's output is a product of polynomials, taken at the points 0,
    +-3/4, +-3/2 and infinity: the error in float32 is a third of that of the usual points (0, +-1, +-2), about that
    of F(2x2, 3x3). Few pixels make the transforms small matrices, zeros at the border included.

    Args:
        x: Images [B, H, W, C]; H and W are multiples of 4.
        points: The kernel at its points, [36, C, K].

    Returns:
        Shape [B, H, W, K].
    """
    _, height, width, channels = x.shape
    into, out = (tf.constant(m, x.dtype) for m in _transforms(height, width))
    # Pixels first, so that each transform is one matrix product.
    pixels = tf.reshape(_swapped(tf.reshape(x, [-1, height * width, channels])), [height * width, -1])
    tiles = tf.reshape(tf.matmul(into, pixels), [_PRODUCTS, -1, channels])
    made = tf.reshape(tf.matmul(tiles, points), [out.shape[1], -1])
    y = _swapped(tf.reshape(tf.matmul(out, made), [height * width, -1, points.shape[-1]]))
    return tf.reshape(y, [-1, height, width, points.shape[-1]])


def at_points(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel [3, 3, C, K] at the points of winograd: [36, C, K]."""
    each, *_ = _cook_toom()
    weights = tf.constant(np.kron(each, each), kernel.dtype)
    return tf.reshape(tf.matmul(weights, tf.reshape(kernel, [9, -1])), [_PRODUCTS, *kernel.shape[2:]])


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


def _form(layer: Conv2D, shape: tuple[int | None, ...], dtype: Any) -> _Form | None:
    """The fastest form that is known for a layer and inputs [B, *shape]; None is Keras' own."""
    height, width, channels = shape
    if not (height and width and channels) or height * width > _MOST_PIXELS or channels < _FEWEST_CHANNELS:
        return None
    if _KERAS_OWN.get() or not _unstrided(layer) or tf.config.list_physical_devices("GPU"):
        return None
    if tf.as_dtype(dtype).size == 2:  # too few bits for winograd
        return _COLUMNS if max(height, width) <= _TILE else None
    return _WINOGRAD if height % _TILE == width % _TILE == 0 else None


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
def _transforms(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of an image: pixels to tiles' points, and products to pixels."""
    _, into, out = _cook_toom()
    rows, columns_ = (_along(size, into, out) for size in (height, width))
    n = len(into)
    pixels = height * width
    down, across = height // _TILE, width // _TILE
    to_tiles = np.kron(rows[0], columns_[0]).reshape(down, n, across, n, pixels)
    to_pixels = np.kron(rows[1], columns_[1]).reshape(pixels, down, n, across, n)
    return (
        to_tiles.transpose(1, 3, 0, 2, 4).reshape(-1, pixels),
        to_pixels.transpose(0, 2, 4, 1, 3).reshape(pixels, -1),
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


_UNPREPARED = _Form(lambda inputs, _: inputs)
_WINOGRAD, _COLUMNS = _Form(winograd, at_points), _Form(columns)
