"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from awp_tf.checks import UserError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to, with the suffix of path; on leaving, that file takes path's place at once."""
    part = path.with_name(f".{path.name}.part{path.suffix}")
    yield part
    with part.open("rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it
    os.replace(part, path)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text; path holds either the old text or the new one, never half of it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Likewise, bytes."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Likewise, arrays by name, as a compressed .npz file; equal arrays give equal bytes."""
    with replacing(path) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)


def read_arrays(path: pathlib.Path, what: str) -> dict[str, np.ndarray] | None:
    """What write_arrays wrote; None where there is no such file.

    Args:
        path: An .npz file.
        what: What it should be, for the message: "the state of an evaluation".

    Raises:
        UserError: It cannot be read.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: expected {what}, which this is not ({error}); delete its folder to start over, or choose another."
        ) from error
