"""What Square Attack proposes: where its windows lie, how large they are, what is painted in them.

All arrays have static shapes: a window is a mask, and a pattern is shifted by one-hot matrices.
"""

import dataclasses
from functools import cached_property

import numpy as np
import tensorflow as tf

from awp_tf import noise
from awp_tf.threats import L2, per_image

_CHANGES = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after these queries windows halve their area
_TILES = 5  # along each side, in the L2 start


@dataclasses.dataclass(frozen=True)
class Stripes:
    """Linf: starts with vertical stripes; each window adds +-2 epsilon, one sign a channel.

    Attributes:
        clean: Images in [0, 1], [B, H, W, C].
        epsilon: The radius.
        queries: After the start.
        first_size: Part of the image that the first windows cover.
    """

    clean: tf.Tensor
    epsilon: float
    queries: int
    first_size: float

    @property
    def numbers(self) -> int:
        """Uniform numbers that a query needs: row, column, a sign for each channel."""
        return 2 + self.clean.shape[-1]

    def start(self, seeds: noise.ImageSeeds) -> tf.Tensor:
        """Perturbed images, [B, H, W, C]."""
        return self.stripes(noise.uniform(seeds, self.clean[:, :1]))

    def stripes(self, noise: tf.Tensor) -> tf.Tensor:
        """The start made of uniform numbers [B, 1, W, C]."""
        return self.clean + self.epsilon * tf.sign(2 * noise - 1)

    def propose(self, best: tf.Tensor, noise: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        """Images to try, [B, H, W, C], from the best so far and noise [B, numbers]; query counts from 0."""
        side = tf.gather(self._sides, query)
        inside = window(best, noise[:, 0], noise[:, 1], side)
        sign = tf.sign(2 * noise[:, tf.newaxis, tf.newaxis, 2:] - 1)
        moved = tf.maximum(best + 2 * self.epsilon * sign * inside, self.clean - self.epsilon)
        return tf.clip_by_value(tf.minimum(moved, self.clean + self.epsilon), 0.0, 1.0)

    @cached_property
    def _sides(self) -> np.ndarray:
        return np.maximum(sides(self.clean.shape[1:3], self.queries, self.first_size), 1)


@dataclasses.dataclass(frozen=True)
class Tiles(Stripes):
    """L2: starts with tiles; each window gets a pattern of two opposite bumps, and takes another's budget."""

    @property
    def numbers(self) -> int:
        """Uniform numbers that a query needs: two rows and columns, a coin, a sign for each channel."""
        return 5 + self.clean.shape[-1]

    def start(self, seeds: noise.ImageSeeds) -> tf.Tensor:
        """Perturbed images, [B, H, W, C]."""
        batch, channels = tf.shape(self.clean)[0], self.clean.shape[-1]
        return self.tiles(noise.uniform(seeds, tf.zeros([batch, self._tiles**2, 1 + channels], self.clean.dtype)))

    def tiles(self, noise: tf.Tensor) -> tf.Tensor:
        """The start made of uniform numbers: for each tile, row by row, a coin and a sign for each channel."""
        (_, height, width, channels), side, tiles = self.clean.shape, self._tile_side, self._tiles
        signs = tf.sign(2 * noise[:, :, 1:] - 1)
        painted = self._turn(pattern(side), noise[:, :, 0])[..., tf.newaxis] * signs[:, :, tf.newaxis, tf.newaxis]
        grid = tf.transpose(tf.reshape(painted, [-1, tiles, tiles, side, side, channels]), [0, 1, 3, 2, 4, 5])
        whole = tiles * side
        top, left = (height - whole) // 2, (width - whole) // 2
        border = [[0, 0], [top, height - whole - top], [left, width - whole - left], [0, 0]]
        return self._scale(tf.pad(tf.reshape(grid, [-1, whole, whole, channels]), border))

    def propose(self, best: tf.Tensor, noise: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        """See Stripes."""
        delta, side = best - self.clean, tf.gather(self._sides, query)
        first = window(best, noise[:, 0], noise[:, 1], side)
        second = window(best, noise[:, 2], noise[:, 3], side)
        sign = tf.sign(2 * noise[:, tf.newaxis, tf.newaxis, 5:] - 1)
        painted = self._paint(best, noise, query) * sign + delta * first / (1e-12 + _channel_norm(delta * first))
        free = tf.maximum(self.epsilon**2 - tf.square(per_image(self._norm(delta))), 0.0) / best.shape[-1]
        budget = tf.sqrt(free + tf.square(_channel_norm(delta * tf.maximum(first, second))))
        painted = painted / (1e-12 + _channel_norm(painted)) * budget
        return tf.clip_by_value(self._scale(tf.where(first > 0, painted, delta * (1 - second))), 0.0, 1.0)

    def _paint(self, best: tf.Tensor, noise: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
        """The pattern of this query at the first window, [B, H, W, 1]."""
        sizes = sorted(set(self._sides))
        table = np.stack([np.pad(pattern(size), [(0, sizes[-1] - size)] * 2) for size in sizes])
        of_query = np.searchsorted(sizes, self._sides)
        turned = self._turn(tf.gather(tf.constant(table, best.dtype), tf.gather(of_query, query)), noise[:, 4])
        side = tf.gather(self._sides, query)
        rows, columns = (
            tf.one_hot(tf.range(size)[tf.newaxis] - corner(u, size, side)[:, tf.newaxis], sizes[-1], dtype=best.dtype)
            for u, size in ((noise[:, 0], best.shape[1]), (noise[:, 1], best.shape[2]))
        )
        return (rows @ turned @ tf.linalg.matrix_transpose(columns))[..., tf.newaxis]

    def _turn(self, square: tf.Tensor, coin: tf.Tensor) -> tf.Tensor:
        """Square [S, S], transposed where coin [...] is above 1/2: [..., S, S]."""
        square = tf.cast(square, self.clean.dtype)
        return tf.where(coin[..., tf.newaxis, tf.newaxis] > 0.5, tf.transpose(square), square)

    def _scale(self, delta: tf.Tensor) -> tf.Tensor:
        """The clean images with delta at its full length."""
        return self.clean + self.epsilon * delta / (per_image(self._norm(delta)) + 1e-12)

    def _norm(self, delta: tf.Tensor) -> tf.Tensor:
        return L2(self.epsilon).norm(delta)

    @property
    def _tile_side(self) -> int:
        return max(min(self.clean.shape[1:3]) // _TILES, 1)

    @property
    def _tiles(self) -> int:
        return min(_TILES, *self.clean.shape[1:3])

    @cached_property
    def _sides(self) -> np.ndarray:
        smallest = min(self.clean.shape[1:3])
        odd = np.maximum(sides(self.clean.shape[1:3], self.queries, self.first_size), 3) // 2 * 2 + 1
        return np.minimum(odd, smallest)


def sides(shape: tuple[int, int], queries: int, first_size: float) -> np.ndarray:
    """The side of the window of each query, at most the image's, int32 [queries]."""
    halvings = np.searchsorted(_CHANGES, np.arange(queries))
    wanted = np.round(np.sqrt(first_size / 2.0**halvings * shape[0] * shape[1]))
    return np.minimum(wanted, min(shape)).astype(np.int32)


def corner(uniform: tf.Tensor, size: int, side: tf.Tensor) -> tf.Tensor:
    """First rows (or columns) [B] of windows; the last possible one is never drawn, as in the official code."""
    return tf.cast(tf.cast(size - side, uniform.dtype) * uniform, tf.int32)


def window(images: tf.Tensor, row: tf.Tensor, column: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """1 inside the windows and 0 outside, [B, H, W, 1], for uniform numbers row and column [B]."""
    inside = []
    for uniform, size in ((row, images.shape[1]), (column, images.shape[2])):
        place = tf.range(size)[tf.newaxis] - corner(uniform, size, side)[:, tf.newaxis]
        inside.append((place >= 0) & (place < side))
    return tf.cast(inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis, :], images.dtype)[..., tf.newaxis]


def pattern(side: int) -> np.ndarray:
    """Two bumps of opposite sign, one above the other, of norm 1: [side, side]."""
    top = side // 2
    bumps = np.concatenate([_bump(top, side), -_bump(side - top, side)])
    return bumps / np.sqrt((bumps**2).sum())


def _bump(height: int, width: int) -> np.ndarray:
    """Falls from the centre as a sum of 1 / k^2 over squares of side 2 k - 1 that cover a pixel; norm 1."""
    if not height:
        return np.zeros([0, width])
    rows, columns = np.ogrid[:height, :width]
    away = np.maximum(abs(rows - height // 2), abs(columns - width // 2))
    steps = np.arange(max(height // 2, width // 2) + 1)
    bump = ((steps >= away[..., None]) / (steps + 1.0) ** 2).sum(-1)
    return np.asarray(bump / np.sqrt((bump**2).sum()))


def _channel_norm(delta: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(delta), axis=[1, 2], keepdims=True))
