"""Images to evaluate on, by a name as a person types it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from awp_tf.data import folders
from awp_tf.data.array_files import npy_split, npz_split
from awp_tf.data.sources import Source, digits, tfds_source
from awp_tf.data.splits import Split, check_split
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.infra.memory import default_room


class DataSet(NamedTuple):
    """Splits by name, and the names of the classes (empty where unknown)."""

    splits: Mapping[str, Split]
    class_names: Sequence[str] = ()


def data_set(name: str, parts: Sequence[str], shape: tuple[int, ...]) -> DataSet:
    """The splits of a data set.

    Args:
        name: "digits"; an .npz file with x_test and y_test (or x_train and y_train, for that split); a
            folder with x_test.npy and y_test.npy; one with test/<class>/* (or val/<class>/*, or <class>/* itself); or
            else a set of tensorflow-datasets.
        parts: Which splits: "test", "train".
        shape: Of the network's images; a folder's are resized to it.

    Raises:
        UserError: There is no such data, or it fails the checks of awp_tf.data.sources.source_of.
    """
    path = local(name)
    if name.endswith(".npz"):
        found = DataSet({part: npz_split(name, part, default_room()) for part in parts})
    elif any(path.glob("x_*.npy")):
        found = DataSet({part: npy_split(name, part, default_room()) for part in parts})
    elif path.is_dir():
        found = _folder(path, parts, shape)
    else:
        source = digits() if name == "digits" else _tfds(name)
        found = DataSet({part: getattr(source, part) for part in parts}, source.class_names)
    for part, split in found.splits.items():
        check_split(f"{name} ({part})", split)
    return found


def _tfds(name: str) -> Source:
    try:
        return tfds_source(name)
    except UserError as error:
        raise UserError(f"data: {name!r} is neither digits nor an .npz file nor a folder; {error}") from error


def _folder(path: pathlib.Path, parts: Sequence[str], shape: tuple[int, ...]) -> DataSet:
    height, width, channels = shape
    if height != width or channels not in (1, 3):
        raise UserError(f"{path}: expected a network for square images to read a folder for, received {list(shape)}.")
    found = {part: folders.part_of(path, part) for part in parts}
    roots = {part: root if root.is_dir() else path for part, root in found.items()}
    if len(set(roots.values())) < len(roots):
        raise UserError(
            f"{path}: expected train/<class>/ and test/<class>/, since both are asked for; received neither."
        )
    # Labels count through the classes seen in training, where that folder is there.
    counted = path / "train" if (path / "train").is_dir() else next(iter(roots.values()))
    names = folders.class_names(counted)
    unknown = {name for root in roots.values() for name in folders.class_names(root)} - set(names)
    if not names or unknown:
        raise UserError(f"{path}: expected test/<class>/ with the classes {names}, received also {sorted(unknown)}.")
    if path in roots.values():
        print(f"{path}: no test/ in it, so all its images are taken, also those that a run on this folder learnt from")
    read = {part: Split(*folders.read(root, names, height, channels, default_room())) for part, root in roots.items()}
    return DataSet(read, names)
