"""Where images come from. A source is checked before training; what does not fit into memory stays where it is."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from awp_tf.data import folders, tfds_reader
from awp_tf.data.splits import Split, check_split, divide, split_of
from awp_tf.infra import memory
from awp_tf.infra.errors import UserError, at_least, share
from awp_tf.infra.files import local


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: What it is called in messages.
        train: For training; validation images are held out of it later, unless there are some already.
        test: For the final report only.
        classes: How many labels there are: 0..classes-1.
        class_names: Their names; empty where unknown.
        validation: To choose the best network; None where the data set has none of its own.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: Sequence[str] = ()
    validation: Split | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @functools.cached_property
    def identity(self) -> dict[str, object]:
        """What a run remembers of its data, to notice later that they are others."""
        splits = {"training": self.train, "validation": self.validation, "test": self.test}
        there = ((part, *split.identity) for part, split in splits.items() if split is not None)
        return {
            "class names": list(self.class_names),
            "classes": self.classes,
            **{f"{part} {kind}": said for part, kind, said in there},
        }


def digits() -> Source:
    """The 8x8 handwritten digits that come with scikit-learn: 1,437 to train on, 360 to test.

    Example:
        >>> from awp_tf.data import digits
        >>> source = digits()
        >>> source.shape, source.classes, len(source.train), len(source.test)
        ((8, 8, 1), 10, 1437, 360)
    """
    import sklearn.datasets  # noqa: PLC0415 (nothing else needs it)

    data = sklearn.datasets.load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    order = np.random.RandomState(0).permutation(len(images))
    everything = Split(images, data.target.astype(np.int32)).take(order)
    return source_of("digits", everything.take(slice(360, None)), everything.take(slice(360)), list("0123456789"))


def tfds_source(
    name: str, data_dir: str | None = None, size: int | None = None, memory_gib: float | None = None
) -> Source:
    """An image classification set of tensorflow-datasets: its splits train, test and validation.

    Where there is no test split, validation is tested on; where there is, the best network is chosen on validation.

    Args:
        name: Its TFDS name: cifar10, cifar100, svhn_cropped, mnist, fashion_mnist, ...
        data_dir: Where it is, or will be; by default TFDS_DATA_DIR or ~/tensorflow_datasets.
        size: Height and width that all images are resized to; None where they are of one size already.
        memory_gib: How much memory the decoded images of a split may take; None is a quarter of what there is. Of more,
            so many are kept in memory, and the others read by index from ArrayRecord files; a set in TFRecord files is
            written in that form once, beside them.

    Raises:
        UserError: There is no such set, it is not prepared and cannot be downloaded, its images are of several sizes
            and no size is given, or its labels are no classes.
    """
    room = memory.room("tfds_source.memory_gib", memory_gib)
    if size is not None:
        at_least("tfds_source.size", size, 4)
    splits, class_names = tfds_reader.read(name, data_dir, size, room)
    train, test, *validation = (split_of(images, labels, name) for images, labels in splits)
    return source_of(name, train, test, class_names, *validation)


def image_folder(path: str, size: int, channels: int = 3, memory_gib: float | None = None, test: float = 0.2) -> Source:
    """A folder with train/<class>/* and test/<class>/* (or val/<class>/*): PNG, JPEG, WebP, BMP or GIF of any size.

    Where both test/ and val/ are there, the best network is chosen on val/.
    One with <class>/* alone is divided: a fraction of every class is for the test, always the same images. Hidden and
    system folders are no classes; files of other kinds, and folders inside a class, are left out, and that is said.

    Args:
        path: The folder.
        size: Height and width that all images are resized to.
        channels: 3 for colour, 1 for grey.
        memory_gib: How much memory the decoded images of a split may take; None is a quarter of what there is. Of more,
            so many are kept in memory, and the others are decoded whenever they are needed.
        test: Which fraction of the images is kept for the test where there is no folder for it.

    Raises:
        UserError: Folders are missing, a class has no image, or a file cannot be decoded (it is named).
    """
    at_least("image_folder.size", size, 4)
    share("image_folder.test", test)
    if channels not in (1, 3):
        raise UserError(f"image_folder.channels: expected 3 (colour) or 1 (grey), received {channels!r}.")
    if not local(path).is_dir():
        raise UserError(f"{path}: expected a folder of images, but there is none ({local(path).absolute()}).")
    room = memory.room("image_folder.memory_gib", memory_gib)
    read = functools.partial(folders.read, size=size, channels=channels, room=room)
    if folders.is_undivided(local(path)):
        names = folders.class_names(local(path))
        everything = Split(*read(local(path), names))
        train, held_out = divide(path, everything, names, test)
        print(
            f"{path}: no train/ and test/ in it, so of every class some are kept for the test: {len(held_out):,} images"
        )
        return source_of(path, train, held_out, names)
    roots = folders.parts_of(local(path))
    names, *others = (folders.class_names(root) for root in roots)
    if not names or any(each != names for each in others):
        received = " and ".join(
            f"{each or 'no classes'} in {root.name}/" for each, root in zip((names, *others), roots, strict=True)
        )
        raise UserError(
            f"{path}: expected train/<class>/ and test/<class>/ with the same classes (or <class>/ alone), "
            f"received {received}."
        )
    train, held_out, *validation = (Split(*read(root, names)) for root in roots)
    return source_of(path, train, held_out, names, *validation)


def source_of(
    name: str, train: Split, test: Split, class_names: Sequence[str] = (), validation: Split | None = None
) -> Source:
    """A Source that is fit to train on.

    Raises:
        UserError: Images are not [N, H, W, C] of uint8 or [0, 1] floats, labels are out of range, a
            split is empty, or there is only one class.
    """
    tested = {"test": test} if validation is None else {"test": test, "validation": validation}
    for part, split in {"train": train, **tested}.items():
        check_split(f"{name} ({part})", split)
    classes = len(class_names) or int(train.labels.max()) + 1
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"{name}: expected at least 2 classes to train on, received only {train.labels[0]}.")
    if classes > len(train):
        raise UserError(
            f"{name}: expected labels 0..K-1 that count the classes, received labels up to {classes - 1} for "
            f"{len(train)} images; number the classes from 0."
        )
    empty = np.flatnonzero(np.bincount(train.labels, minlength=classes) == 0)
    if len(empty):
        shown = ", ".join(str(class_names[k] if len(class_names) else k) for k in empty[:5])
        raise UserError(f"{name}: expected training images of every class, received none of class {shown}.")
    for part, split in tested.items():
        described = [f"{s.images.dtype} {s.images.shape[1:]}" for s in (train, split)]
        if described[0] != described[1]:
            raise UserError(f"{name}: expected alike images in train and {part}, received {' and '.join(described)}.")
    largest = max(int(split.labels.max()) for split in (train, *tested.values()))
    if largest >= classes:
        raise UserError(f"{name}: expected labels in 0..{classes - 1}, received {largest}.")
    return Source(name, train, test, classes, tuple(class_names), validation)
