"""Images in NumPy's files, .npz and .npy: read without pickle, and mapped where they do not fit into memory."""

import pathlib
import zipfile
import zlib

import numpy as np

from awp_tf.data.sources import Source, source_of
from awp_tf.data.splits import Split, split_of
from awp_tf.infra import memory
from awp_tf.infra import npz as arrays
from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.files import local

_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error)


def npz(path: str, memory_gib: float | None = None) -> Source:
    """An .npz file with x_train, y_train, x_test and y_test, as Keras' own, perhaps x_val and y_val; without pickle.

    Args:
        path: The file. Of images that need more memory than that, those that np.savez (not savez_compressed) wrote stay
            in the file, and are read batch by batch.
        memory_gib: How much memory the images of a split may take; None is a quarter of what there is.

    Raises:
        UserError: The file is missing, is not such a file, or its contents fail the checks.
    """
    room = memory.room("npz.memory_gib", memory_gib)
    train, test = (npz_split(path, part, room) for part in ("train", "test"))
    validation = npz_split(path, "val", room) if "x_val" in arrays.names(local(path)) else None
    return source_of(path, train, test, validation=validation)


def npz_split(path: str, part: str, room: int | None = None) -> Split:
    """One split of an .npz file: x_<part> and y_<part>; see npz. Of room bytes, None is as much as it takes."""
    try:
        with local(path).open("rb"):  # says what is wrong with a path
            images, labels = (arrays.read(local(path), f"{name}_{part}") for name in "xy")
    except (UserError, *_UNREADABLE) as error:
        message = f"an .npz file with numeric arrays x_{part} and y_{part}"
        raise UserError(f"{path}: expected {message}; {first_line(error).split('; ')[-1]}") from error
    return _arrays(f"{path} ({part})", images, labels, room)


def npy(path: str, memory_gib: float | None = None) -> Source:
    """A folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy, as np.save writes them; read without pickle.

    It may have x_val.npy and y_val.npy, too.

    Args:
        path: The folder. Images that need more memory than that stay in their file, and are read batch by batch.
        memory_gib: How much memory the images of a split may take; None is a quarter of what there is.

    Raises:
        UserError: A file is missing or is not such a file, or its contents fail the checks.
    """
    room = memory.room("npy.memory_gib", memory_gib)
    train, test = (npy_split(path, part, room) for part in ("train", "test"))
    validation = npy_split(path, "val", room) if (local(path) / "x_val.npy").exists() else None
    return source_of(path, train, test, validation=validation)


def npy_split(path: str, part: str, room: int | None = None) -> Split:
    """One split of such a folder: x_<part>.npy and y_<part>.npy; see npy. Of room bytes, None is all it takes."""
    images, labels = (_npy(local(path) / f"{name}_{part}.npy") for name in "xy")
    return _arrays(f"{path} ({part})", images, labels, room)


def _npy(file: pathlib.Path) -> np.ndarray:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{file}: expected a numeric array that np.save wrote; {first_line(error)}") from error
    if not isinstance(found, np.ndarray):
        raise UserError(f"{file}: expected a numeric array that np.save wrote, received an .npz file of that name.")
    return found


def _arrays(name: str, images: np.ndarray, labels: np.ndarray, room: int | None) -> Split:
    """Arrays, mapped or not, as a split: read into memory where they fit into room."""
    if room is None or images.nbytes <= room or images.dtype not in (np.uint8, np.float32):
        return split_of(np.array(images), np.array(labels), name)
    if isinstance(images, np.memmap):
        size = f"{images.nbytes / memory.GIB:.1f} GiB"
        print(f"{name}: {len(images):,} images, {size}: read from the file batch by batch")
    return split_of(images, np.array(labels), name)
