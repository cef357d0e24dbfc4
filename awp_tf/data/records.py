"""Sets of tensorflow-datasets whose examples are read by index, from ArrayRecord files."""

import contextlib
import importlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from awp_tf.data.folders import resize
from awp_tf.data.stored import Decoded, Images
from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.files import atomic_write
from awp_tf.infra.memory import GIB

FORMAT = "array_record"
_BLOCK = 16  # examples that tensorflow-datasets takes of a file before it goes on to the next
_AT_ONCE = 256  # records whose labels are read
_UNREADABLE = (OSError, ValueError, RuntimeError, IndexError, tf.errors.OpError)


def files_of(info: Any) -> list[pathlib.Path]:
    """The ArrayRecord files of a split, which may not be there yet.

    Args:
        info: The builder's, of the split.
    """
    template = info.filename_template.replace(filetype_suffix=FORMAT)
    return [pathlib.Path(os.fspath(file)) for file in template.sharded_filepaths(info.num_shards)]


def convert(name: str, info: Any) -> None:
    """Writes the TFRecord files of a split as ArrayRecord files beside them, each whole or not at all.

    Those that are there already stay. tensorflow-datasets' own converter needs Apache Beam, and may leave half a file.

    Args:
        name: Of the set, for messages.
        info: The builder's, of the split.

    Raises:
        UserError: array_record is not installed, the folder cannot be written, or a file cannot be read.
    """
    pairs = [pair for pair in zip(info.filepaths, files_of(info), strict=True) if not pair[1].is_file()]
    if not pairs:
        return
    folder = pairs[0][1].parent
    print(f"{name} ({info.name}): more than memory has room for; written once as ArrayRecord files to {folder}")
    try:
        for source, file in pairs:
            with atomic_write(file) as part:
                _write(os.fspath(source), part)
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"{name}: cannot be written as ArrayRecord files to {folder} ({first_line(error)}); free space there, name "
            "a folder of your own (tfds_source.data_dir), or give its images memory (tfds_source.memory_gib)."
        ) from error


def read(name: str, builder: Any, split: str, size: int | None, room: int) -> tuple[Images, np.ndarray]:
    """The images of a split in ArrayRecord files and their labels, in the order of tensorflow-datasets.

    Args:
        name: Of the set, for messages.
        builder: Its tfds builder.
        split: "train", for instance.
        size: Height and width that images are resized to; None where they are of one size.
        room: Bytes that images may take; of more, so many are kept, and the others read when they are needed.

    Returns:
        [N, H, W, C] and [N].

    Raises:
        UserError: array_record is not installed, or images are of several sizes or cannot be read.
    """
    info, features = builder.info.splits[split], builder.info.features
    files = files_of(info)
    try:
        records = _module("array_record_data_source").ArrayRecordDataSource([os.fspath(file) for file in files])
        labels = _labels(files, records, features)
    except _UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name} ({split}): expected readable ArrayRecord files; {first_line(error)}") from error
    rows = order(info.shard_lengths, 1 if builder.info.disable_shuffling else _BLOCK)
    known = f"{builder.info.full_name} {split} {info.num_bytes} bytes, size {size}, example"
    decode = _Decoder(f"{name} ({split})", records, features, size)
    shape, kind = decode.image(rows[0]).shape, features["image"].np_dtype
    total = len(rows) * int(np.prod(shape)) * np.dtype(kind).itemsize
    kept = 0 if total <= room else room  # what is read whole is not kept twice
    images = Decoded(rows.tolist(), decode, shape, kept, lambda row: f"{known} {row}", kind)
    if total <= room:
        return images[:], labels[rows]
    print(
        f"{name} ({split}): {len(rows):,} images, {total / GIB:.1f} GiB: read by index from {files[0].parent}, "
        f"{room / GIB:.1f} GiB of them kept in memory"
    )
    return images, labels[rows]


class _Decoder:
    """Reads and decodes one record, as tensorflow-datasets does; several threads call it."""

    def __init__(self, name: str, records: Any, features: Any, size: int | None) -> None:
        def image_of(record: tf.Tensor) -> tf.Tensor:
            with tf.device("CPU:0"):  # see folders.decode
                image = features.deserialize_example(record)["image"]
                return image if size is None else resize(image, size, size)

        self._name, self._records = name, records
        # Traced now, or several threads would do it later.
        self._image_of = tf.function(image_of).get_concrete_function(tf.TensorSpec([], tf.string))
        self._shape: tuple[int, ...] | None = None

    def image(self, row: int) -> np.ndarray:
        """The image of a record, of any size; later ones have to have it, too."""
        try:
            found: np.ndarray = self._image_of(tf.constant(self._records[int(row)])).numpy()
        except _UNREADABLE as error:
            raise UserError(f"{self._name}: example {row} cannot be read; {first_line(error)}") from error
        self._shape = self._shape or found.shape
        return found

    def __call__(self, row: int) -> np.ndarray:
        found = self.image(row)
        if found.shape != self._shape:
            raise UserError(
                f"{self._name}: expected readable images of one size (images of several sizes are resized with "
                f"tfds_source.size = 64, say), received {list(self._shape or ())} and {list(found.shape)}."
            )
        return found


def order(lengths: Sequence[int], at_once: int = _BLOCK) -> np.ndarray:
    """Which record is the n-th that tensorflow-datasets gives: it takes some of each of several files by turns.

    Args:
        lengths: How many records each file has.
        at_once: How many files are open.

    Returns:
        int64 [N]: places in all files, one after the other.
    """
    starts = np.cumsum([0, *lengths])[:-1]
    if len(lengths) == 1 or at_once == 1:
        return np.arange(sum(lengths), dtype=np.int64)
    files = tf.data.Dataset.from_tensor_slices((starts.astype(np.int64), np.asarray(lengths, np.int64)))
    rows = files.interleave(
        lambda start, length: tf.data.Dataset.range(start, start + length), cycle_length=at_once, block_length=_BLOCK
    )
    return np.concatenate(list(rows.batch(100_000).as_numpy_iterator()))


def _labels(files: Sequence[pathlib.Path], records: Any, features: Any) -> np.ndarray:
    """The labels of all records, file by file; kept beside the files, since all of them have to be read for it."""
    kept = files[0].with_name(f"{files[0].name}.labels.npy")
    with contextlib.suppress(OSError, ValueError, EOFError):
        if kept.stat().st_mtime >= max(file.stat().st_mtime for file in files):
            found: np.ndarray = np.load(kept, allow_pickle=False)
            if found.shape == (len(records),):
                return found
    kind = features["label"].np_dtype

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def labels_of(some: tf.Tensor) -> tf.Tensor:  # no image is decoded: nothing asks for it
        return tf.map_fn(lambda record: features.deserialize_example(record)["label"], some, fn_output_signature=kind)

    places = range(len(records))
    parts = (records.__getitems__(places[first : first + _AT_ONCE]) for first in places[::_AT_ONCE])
    labels = np.concatenate([labels_of(tf.constant(part)).numpy() for part in parts])
    with contextlib.suppress(OSError), atomic_write(kept) as part:  # of a folder that cannot be written: next time anew
        np.save(part, labels)
    return labels


def _write(source: str, file: pathlib.Path) -> None:
    writer = _module("array_record_module").ArrayRecordWriter(os.fspath(file), "group_size:1")
    for record in tf.data.TFRecordDataset(source).as_numpy_iterator():
        writer.write(record)
    writer.close()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"array_record.python.{name}")
    except ImportError as error:
        raise UserError(
            "tfds_source: a set in ArrayRecord files, or one that does not fit into memory, needs array_record "
            "(on Linux tensorflow-datasets brings it): pip install 'awp_tf[array-record]'."
        ) from error
