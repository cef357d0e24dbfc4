"""Images that stay where they are until they are asked for, row by row: a batch is still a function of (seed, step)."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from awp_tf.infra.cpu import cores

_AT_ONCE = 256  # rows that a digest reads


class Images(Protocol):
    """What an array of images [N, H, W, C] can do, and what reads them when they are needed."""

    @property
    def ndim(self) -> int:
        """4, or it is refused."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, C]."""
        ...

    @property
    def dtype(self) -> Any:
        """np.uint8 or np.float32."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """The images at index, read into an array."""
        ...


class Decoded:
    """Items (files, records) that are decoded when they are asked for; the first stay in memory while there is room.

    Which ones does not matter where every epoch has an order of its own.
    """

    def __init__(
        self,
        items: Sequence[Any],
        decode: Callable[[Any], np.ndarray],
        shape: tuple[int, ...],
        room: int,
        describe: Callable[[Any], str],
        dtype: Any = np.uint8,
    ) -> None:
        """Reads nothing yet.

        Args:
            items: What decode takes, one an image.
            decode: Makes an array [H, W, C] of an item; several threads call it.
            shape: Of that array.
            room: Bytes of images that may be kept.
            describe: A line that stands for an item's image in a digest.
            dtype: Of that array.
        """
        self._items, self._decode, self._describe = items, decode, describe
        self.shape, self.dtype, self.ndim = (len(items), *shape), np.dtype(dtype), 1 + len(shape)
        self._kept: dict[int, np.ndarray] = {}
        self._most = room // (int(np.prod(shape)) * self.dtype.itemsize)
        self._writing = threading.Lock()
        self._threads = concurrent.futures.ThreadPoolExecutor(len(cores()))

    def __len__(self) -> int:
        """How many items."""
        return len(self._items)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images at index, decoded side by side."""
        rows = np.arange(len(self))[index]
        images = np.empty((rows.size, *self.shape[1:]), self.dtype)

        def fill(place: int, row: int) -> None:
            images[place] = self._image(row)

        for _ in self._threads.map(fill, range(rows.size), rows.ravel().tolist()):
            pass  # an error of a thread is raised here
        return images.reshape(*rows.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def digest(self, total: Any, rows: np.ndarray) -> None:
        """Adds what stands for the images at rows: to decode them all would take as long as an epoch."""
        for row in rows:
            total.update(f"{self._describe(self._items[row])}\n".encode(errors="surrogateescape"))

    def _image(self, row: int) -> np.ndarray:
        image = self._kept.get(row)
        if image is None:
            image = self._decode(self._items[row])
            with self._writing:  # or threads that see the same last place would all take it
                if len(self._kept) < self._most:
                    self._kept[row] = image
        return image


class Chosen:
    """Some rows of images that are not in memory, in an order."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        """Row i is rows[i] of images."""
        self.images, self.rows = images, rows
        self.shape, self.dtype, self.ndim = (len(rows), *images.shape[1:]), images.dtype, images.ndim

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The images at index."""
        return np.asarray(self.images[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them."""
        return self[:].astype(dtype or self.dtype, copy=False)


def in_memory(images: Images) -> bool:
    """Whether they are an array that was read."""
    return isinstance(images, np.ndarray) and not isinstance(images, np.memmap)


def read_through(images: Images) -> None:
    """Reads those that are not in memory once, and keeps none: what cannot be read is said now, and not in the end."""
    for first in range(0, 0 if in_memory(images) else len(images), _AT_ONCE):
        np.asarray(images[first : first + _AT_ONCE])


def chosen(images: Images, index: Any) -> Images:
    """The rows at index; they are read now only if all are in memory."""
    if in_memory(images):
        return images[index]
    if isinstance(images, Chosen):
        return Chosen(images.images, images.rows[index])
    return Chosen(images, np.arange(len(images))[index])


def known_by_name(images: Images) -> bool:
    """Whether a digest is of their files' names and sizes; the same images in memory have another."""
    return isinstance(images.images if isinstance(images, Chosen) else images, Decoded)


def digest_of(images: Images, total: Any) -> None:
    """Adds images to a digest: their bytes, or what stands for them."""
    whole = images.images if isinstance(images, Chosen) else images
    if isinstance(whole, Decoded):
        whole.digest(total, images.rows if isinstance(images, Chosen) else np.arange(len(images)))
        return
    step = len(images) if in_memory(images) else _AT_ONCE
    for first in range(0, len(images), max(1, step)):
        total.update(np.ascontiguousarray(images[first : first + step]).data)
