"""Ways to compute an unstrided convolution, zeros around the image, that are equal but for rounding."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

TILE = 4
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity; see winograd
_PRODUCTS = (TILE + 2) ** 2


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
        wide = tf.matmul(neighbours, tf.reshape(dy, [-1, kernel.shape[-1]]), transpose_a=True)
        return product(_neighbours(dy), turn(kernel)), tf.reshape(wide, kernel.shape)

    return product(neighbours, kernel), gradient


@tf.custom_gradient
def turned(x: tf.Tensor, kernel: tf.Tensor, backwards: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """An unstrided convolution of odd size, zeros around the image; the gradient of the images is one, too.

    Args:
        x: Images [B, H, W, C].
        kernel: Shape [k, k, C, K].
        backwards: What turn makes of the kernel, [k, k, K, C].

    Returns:
        Shape [B, H, W, K].
    """

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None]:
        by_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=kernel.shape, out_backprop=dy, strides=[1] * 4, padding="SAME"
        )
        return turned(dy, backwards, kernel), by_kernel, None

    return tf.nn.conv2d(x, kernel, 1, "SAME"), gradient


def turn(kernel: tf.Tensor) -> tf.Tensor:
    """A kernel [k, k, C, K] turned by 180 degrees, its channels in the places of its filters: [k, k, K, C]."""
    return tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])


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
    down, across = height // TILE, width // TILE
    to_tiles = np.kron(rows[0], columns_[0]).reshape(down, n, across, n, pixels)
    to_pixels = np.kron(rows[1], columns_[1]).reshape(pixels, down, n, across, n)
    return (
        to_tiles.transpose(1, 3, 0, 2, 4).reshape(-1, pixels),
        to_pixels.transpose(0, 2, 4, 1, 3).reshape(pixels, -1),
    )


def _along(size: int, into: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The transforms of all tiles of a line of pixels, which has a zero at either end."""
    tiles = size // TILE
    shifts = [np.eye(len(into), size + 2, TILE * tile)[:, 1:-1] for tile in range(tiles)]
    return np.concatenate([into @ shift for shift in shifts]), np.kron(np.eye(tiles), out)


def _cook_toom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G [6, 3], B^T [6, 6] and A^T [4, 6] in the names of the paper: polynomials at _POINTS and at infinity."""
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    scale = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    kernel = np.vander(points, 3, increasing=True) / np.array(scale)[:, None]
    into = [*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(points)[::-1]]
    out = np.vander(points, TILE, increasing=True)
    last = np.eye(3)[2:], np.eye(TILE)[TILE - 1 :]
    return np.concatenate([kernel, last[0]]), np.array(into), np.concatenate([out, last[1]]).T
