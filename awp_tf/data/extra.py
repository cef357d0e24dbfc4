"""Images beside the labelled ones: pseudo-labelled by a network, or generated together with their labels."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from awp_tf.data.batches import Batches
from awp_tf.data.mixed import MixedBatches
from awp_tf.data.sources import Source
from awp_tf.data.splits import Split, check_split, split_of
from awp_tf.infra import npz
from awp_tf.infra.errors import UserError, first_line, share
from awp_tf.infra.files import local

PROVENANCE = "provenance"  # the member of a file of pseudo-labels that says how they were made
_CHECKED = 4096  # images at a time


class Extra(Protocol):
    """Adds images to training batches."""

    def __call__(self, batches: Batches, source: Source) -> Batches:
        """The batches to train on.

        Args:
            batches: Of labelled images.
            source: Where those come from.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoExtra:
    """Labelled images only."""

    def __call__(self, batches: Batches, source: Source) -> Batches:
        """Returns batches."""
        return batches


@dataclasses.dataclass(frozen=True)
class ExtraData:
    """Extra images make up a fixed share of every batch; see MixedBatches.

    Attributes:
        path: An .npz file with `image` [M, H, W, C] and `label` [M]: what tools.pseudo_label writes, or generated
            images in the form of Wang et al. (ICML 2023).
        ratio: Which part of a batch is extra, in (0, 1).
    """

    path: str = ""
    ratio: float = 0.5

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense; the file is not read yet."""
        share("ExtraData.ratio", self.ratio)
        if not isinstance(self.path, str) or not self.path:
            raise UserError(
                f"ExtraData.path: expected an .npz file with extra images, received {self.path!r}; name one, or train "
                "without extra data."
            )

    def __call__(self, batches: Batches, source: Source) -> Batches:
        """See Extra.

        Raises:
            UserError: The file cannot be read, or its images or labels are not like those of source.
        """
        fields = {field.name: getattr(batches, field.name) for field in dataclasses.fields(batches)}
        return MixedBatches(**fields, extra=read(self.path, source), ratio=self.ratio)


def read(path: str, like: Source) -> Split:
    """The images of a file with `image` and `label`, which stay in the file unless it is compressed.

    Args:
        path: The .npz file; nothing in it is unpickled.
        like: The data they are added to.

    Raises:
        UserError: It is no such file, its images are of another shape or type, its labels are other than 0..K-1, or
            they are pseudo-labels of another data set.
    """
    file = local(path)
    missing = {"image", "label"} - set(npz.names(file))
    if missing:
        raise UserError(
            f"{path}: expected an .npz file with image and label, received {', '.join(npz.names(file)) or 'nothing'}; "
            "python -m tools.pseudo_label makes one."
        )
    _require_same_classes(path, provenance(file), like)
    images, labels = npz.read(file, "image"), npz.read(file, "label")
    wanted = like.train.images
    if images.shape[1:] != wanted.shape[1:] or images.dtype != wanted.dtype:
        raise UserError(
            f"{path}: expected images like those of {like.name}, {wanted.dtype} {list(wanted.shape[1:])}, received "
            f"{images.dtype} {list(images.shape[1:])}; make them anew from images of that kind."
        )
    split = split_of(images, labels, path)
    check_parts(path, split)
    if int(split.labels.max()) >= like.classes:
        raise UserError(
            f"{path}: expected labels in 0..{like.classes - 1}, the classes of {like.name}, received "
            f"{int(split.labels.max())}."
        )
    return split


def check_parts(name: str, split: Split) -> None:
    """Checks a split as check_split does, in parts, so that no temporary array is as large as all images."""
    images = split.images
    if images.dtype == np.uint8 or images.ndim != 4 or not len(images) == len(split) > 0:
        check_split(name, split)
        return
    for first in range(0, len(split), _CHECKED):
        part = slice(first, first + _CHECKED)
        check_split(name, Split(np.asarray(images[part]), split.labels[part]))


def provenance(file: pathlib.Path) -> Mapping[str, object]:
    """How pseudo-labels were made; empty for a file of another origin.

    Raises:
        UserError: It cannot be read.
    """
    if PROVENANCE not in npz.names(file):
        return {}
    try:
        found = json.loads(str(np.asarray(npz.read(file, PROVENANCE))))
    except ValueError as error:
        raise UserError(f"{file}: expected {PROVENANCE} in JSON; {first_line(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected {PROVENANCE} to be names and values, received {type(found).__name__}.")
    return found


def _require_same_classes(path: str, made: Mapping[str, object], like: Source) -> None:
    """A network labels with the classes it was trained on; nobody notices later that they were others."""
    pairs = (("classes", like.classes), ("class names", list(like.class_names)))
    for name, wanted in pairs:
        there = made.get(name)
        if there and wanted and there != wanted:
            raise UserError(
                f"{path}: expected pseudo-labels for {like.name}, received those of another data set: {name} {there}, "
                f"not {wanted}; label the images with a network that was trained on {like.name}."
            )
