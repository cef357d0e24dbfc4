"""Images that stay where they are until they are asked for, row by row: a batch is still a function of (seed, step)."""

import concurrent.futures
import pathlib
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
    """Files that are decoded when they are asked for; the first ones that are stay in memory as long as there is room.

    Which ones does not matter where every epoch has an order of its own.
    """

    def __init__(
        self,
        files: Sequence[pathlib.Path],
        decode: Callable[[pathlib.Path], np.ndarray],
        shape: tuple[int, ...],
        room: int,
    ) -> None:
        """Keeps up to room bytes of images; decode makes uint8 [H, W, C] (shape) of a file."""
        self._files, self._decode = list(files), decode
        self.shape, self.dtype, self.ndim = (len(files), *shape), np.dtype(np.uint8), 1 + len(shape)
        self._kept: dict[int, np.ndarray] = {}
        self._most = room // int(np.prod(shape))
        self._threads = concurrent.futures.ThreadPoolExecutor(len(cores()))

    def __len__(self) -> int:
        """How many files."""
        return len(self._files)

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
        """Adds names and sizes of files: to read them all would take as long as an epoch."""
        for row in rows:
            file = self._files[row]
            total.update(f"{file.parent.name}/{file.name} {file.stat().st_size}\n".encode(errors="surrogateescape"))

    def _image(self, row: int) -> np.ndarray:
        image = self._kept.get(row)
        if image is None:
            image = self._decode(self._files[row])
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


def chosen(images: Images, index: Any) -> Images:
    """The rows at index; they are read now only if all are in memory."""
    if in_memory(images):
        return images[index]
    if isinstance(images, Chosen):
        return Chosen(images.images, images.rows[index])
    return Chosen(images, np.arange(len(images))[index])


def digest_of(images: Images, total: Any) -> None:
    """Adds images to a digest: their bytes, or what stands for them."""
    whole = images.images if isinstance(images, Chosen) else images
    if isinstance(whole, Decoded):
        whole.digest(total, images.rows if isinstance(images, Chosen) else np.arange(len(images)))
        return
    step = len(images) if in_memory(images) else _AT_ONCE
    for first in range(0, len(images), max(1, step)):
        total.update(np.ascontiguousarray(images[first : first + step]).data)
