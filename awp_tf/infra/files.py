"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib
import re
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from awp_tf.infra.errors import UserError


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to, with the suffix of path; on leaving, that file takes path's place at once.

    The name is nobody else's: on a disk without locks several processes may write the same file.
    """
    part = path.with_name(f".{path.name}.part{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def local(text: str) -> pathlib.Path:
    """A path as a person types it: ~ is their home.

    Raises:
        UserError: It is an address elsewhere (gs://...), which would become a folder of that name.
    """
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        raise UserError(f"{text}: expected a path on this machine; mount it, or copy the folder here.")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise UserError(f"{text}: expected a path; {error}") from error


@contextlib.contextmanager
def without_wildcards(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A way to a folder whose name TensorFlow does not take for a pattern: it reads lr[0.1] as lr0 or lr. or lr1."""
    if not re.search(r"[\[\]*?\\]", str(folder.resolve())):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = pathlib.Path(place) / "folder"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def is_part(path: pathlib.Path) -> bool:
    """Whether a file is what a killed process left of one that was to replace another."""
    return path.name.startswith(".") and ".part" in path.name


def remove_parts(folder: pathlib.Path) -> None:
    """Removes what killed processes left of such files in a folder that nobody else writes to."""
    for file in filter(is_part, list(folder.glob(".*"))):
        file.unlink(missing_ok=True)


def is_whole_zip(path: pathlib.Path) -> bool:
    """Whether a file is a zip archive, as .keras is, of which nothing is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text; path holds either the old text or the new one, never half of it."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Likewise, bytes."""
    with atomic_write(path) as part:
        part.write_bytes(content)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Likewise, arrays by name, as a compressed .npz file; equal arrays give equal bytes."""
    with atomic_write(path) as part:
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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: expected {what}, which this is not ({error}); delete its folder to start over, or choose another."
        ) from error
