"""Large arrays in .npz files: mapped into memory where they are stored plainly, never unpickled, never held twice."""

import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, NamedTuple

import numpy as np

from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.files import atomic_write

UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

_LOCAL_HEADER = 30  # bytes of a zip's header before a member's name
_COPIED = 2**24  # bytes at a time


class Chosen(NamedTuple):
    """Some rows of an array, for write: they are copied a few at a time.

    Attributes:
        array: Shape [N, ...].
        rows: Which of them, shape [M].
    """

    array: np.ndarray
    rows: np.ndarray


def names(path: pathlib.Path) -> list[str]:
    """The arrays in an .npz file.

    Raises:
        UserError: It is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except UNREADABLE as error:
        raise UserError(f"{path}: expected an .npz file; {first_line(error)}") from error


def read(path: pathlib.Path, name: str) -> np.ndarray:
    """One array of an .npz file, read-only where it is mapped.

    What np.savez wrote stays in the file until it is used; what np.savez_compressed wrote is read into memory, a piece
    at a time.

    Raises:
        UserError: The file cannot be read, there is no such array, or it holds Python objects.
    """
    try:
        mapped = _mapped(path, f"{name}.npy")
        if mapped is not None:
            return mapped
        with np.load(path, allow_pickle=False) as data:
            found: np.ndarray = data[name]
            return found
    except UNREADABLE as error:
        raise UserError(f"{path}: expected an .npz file with a plain array {name!r}; {first_line(error)}") from error


def _mapped(path: pathlib.Path, member: str) -> np.ndarray | None:
    """An array where it stands in the file; None where it is compressed, empty or of Python objects."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return None
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                return None
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, in_fortran_order, dtype = header(stream)
            before = stream.tell()
    if dtype.hasobject or in_fortran_order or not np.prod(shape, dtype=object) or not shape:
        return None
    return np.memmap(path, dtype, "r", _start(path, info) + before, shape)


def _start(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Where a member's content begins: its own header may be longer than the one in the file's table."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<2H", file.read(_LOCAL_HEADER)[26:])
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray | Chosen]) -> None:
    """Writes arrays by name as np.savez does, whole or not at all; equal arrays give equal bytes."""
    with atomic_write(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                if isinstance(array, Chosen):
                    _write_rows(stream, array)
                else:
                    np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_rows(stream: IO[bytes], chosen: Chosen) -> None:
    array, rows = chosen
    shape = (len(rows), *array.shape[1:])
    descr = np.lib.format.dtype_to_descr(array.dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    count = max(1, _COPIED // max(1, array[:1].nbytes))
    for first in range(0, len(rows), count):
        stream.write(array[rows[first : first + count]].tobytes())
