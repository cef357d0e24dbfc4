"""Where images come from. Every source is read whole into memory and checked before training."""

import dataclasses
import functools
import hashlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from awp_tf.data import folders, tfds_reader
from awp_tf.infra.errors import UserError, at_least, first_line
from awp_tf.infra.files import local

_MOST_LABEL = 10**9  # beyond, they name something else, and int32 would soon end
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8 in [0, 255] or float32 in [0, 1], shape [N, H, W, C].
        labels: int32, shape [N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at index."""
        return Split(self.images[index], self.labels[index])

    def digest(self) -> str:
        """SHA-256 of all images and labels."""
        total = hashlib.sha256(f"{self.images.dtype} {self.images.shape}".encode())
        total.update(np.ascontiguousarray(self.images).data)
        total.update(np.ascontiguousarray(self.labels).data)
        return total.hexdigest()


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: What it is called in messages.
        train: For training; validation images are held out of it later.
        test: For the final report only.
        classes: How many labels there are: 0..classes-1.
        class_names: Their names; empty where unknown.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: Sequence[str] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.train.images.shape[1:]

    @functools.cached_property
    def identity(self) -> dict[str, object]:
        """What a run remembers of its data, to notice later that they are others."""
        return {
            "class names": list(self.class_names),
            "classes": self.classes,
            "training images": f"{len(self.train)}, SHA-256 {self.train.digest()}",
            "test images": f"{len(self.test)}, SHA-256 {self.test.digest()}",
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


def npz(path: str) -> Source:
    """An .npz file with x_train, y_train, x_test and y_test, as Keras' own; read without pickle.

    Raises:
        UserError: The file is missing, is not such a file, or its contents fail the checks.
    """
    return source_of(path, npz_split(path, "train"), npz_split(path, "test"))


def npz_split(path: str, part: str) -> Split:
    """One split of an .npz file: x_<part> and y_<part>; see npz."""
    try:
        with local(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
            images, labels = data[f"x_{part}"], data[f"y_{part}"]
    except _UNREADABLE as error:
        message = f"an .npz file with numeric arrays x_{part} and y_{part}"
        raise UserError(f"{path}: expected {message}; {first_line(error)}") from error
    return split_of(images, labels)


def tfds_source(name: str, data_dir: str | None = None, size: int | None = None) -> Source:
    """An image classification set of tensorflow-datasets, with its train and test splits.

    Args:
        name: Its TFDS name: cifar10, cifar100, svhn_cropped, mnist, fashion_mnist, ...
        data_dir: Where it is, or will be; by default TFDS_DATA_DIR or ~/tensorflow_datasets.
        size: Height and width that all images are resized to; None where they are of one size already.

    Raises:
        UserError: There is no such set, it is not prepared and cannot be downloaded, its images are of several sizes
            and no size is given, or its labels are no classes.
    """
    if size is not None:
        at_least("tfds_source.size", size, 4)
    train, test, class_names = tfds_reader.read(name, data_dir, size)
    return source_of(name, split_of(*train), split_of(*test), class_names)


def image_folder(path: str, size: int, channels: int = 3) -> Source:
    """A folder with train/<class>/* and test/<class>/*: PNG, JPEG, WebP, BMP or GIF of any size.

    Hidden and system folders are no classes; files of other kinds, and folders inside a class, are left out, and that
    is said.

    Args:
        path: The folder.
        size: Height and width that all images are resized to.
        channels: 3 for colour, 1 for grey.

    Raises:
        UserError: Folders are missing, a class has no image, or a file cannot be decoded (it is named).
    """
    at_least("image_folder.size", size, 4)
    if channels not in (1, 3):
        raise UserError(f"image_folder.channels: expected 3 (colour) or 1 (grey), received {channels!r}.")
    roots = [local(path) / part for part in ("train", "test")]
    names = [folders.class_names(root) for root in roots]
    if not names[0] or names[0] != names[1]:
        raise UserError(
            f"{path}: expected train/<class>/ and test/<class>/ with the same classes, "
            f"received {names[0] or 'no train classes'} and {names[1] or 'no test classes'}."
        )
    train, test = (split_of(*folders.read(root, names[0], size, channels)) for root in roots)
    return source_of(path, train, test, names[0])


def source_of(name: str, train: Split, test: Split, class_names: Sequence[str] = ()) -> Source:
    """A Source that is fit to train on.

    Raises:
        UserError: Images are not [N, H, W, C] of uint8 or [0, 1] floats, labels are out of range, a
            split is empty, or there is only one class.
    """
    for part, split in (("train", train), ("test", test)):
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
    if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
        described = [f"{s.images.dtype} {s.images.shape[1:]}" for s in (train, test)]
        raise UserError(f"{name}: expected alike images to train and test on, received {' and '.join(described)}.")
    largest = max(int(train.labels.max()), int(test.labels.max()))
    if largest >= classes:
        raise UserError(f"{name}: expected labels in 0..{classes - 1}, received {largest}.")
    return Source(name, train, test, classes, tuple(class_names))


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    """Arrays as a split: grey images get a channel, floats are float32, labels int32.

    Raises:
        UserError: Labels are no whole numbers that could count classes, or images no numbers.
    """
    if images.dtype.kind not in "biuf":
        raise UserError(f"images: expected numbers, received {images.dtype}.")
    images = images[..., None] if images.ndim == 3 else images
    images = images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(f"labels: expected one whole number an image, received {labels.shape}; one-hot: y.argmax(1).")
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels: expected whole numbers, received {labels.dtype}.")
    if len(labels) and int(labels.max()) > _MOST_LABEL:
        raise UserError(f"labels: expected 0..K-1, received {int(labels.max())}; number the classes from 0.")
    return Split(images, labels.astype(np.int32))


def check_split(name: str, split: Split) -> None:
    """Raises UserError unless images are [N, H, W, C] of uint8 or [0, 1] floats, with N labels >= 0, N > 0."""
    images, labels = split.images, split.labels
    if images.ndim != 4 or len(images) != len(labels) or not len(images):
        raise UserError(
            f"{name}: expected images [N, H, W, C] and N labels, N > 0, "
            f"received shapes {images.shape} and {labels.shape}."
        )
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise UserError(
            f"{name}: expected images [N, H, W, C], received {images.shape}, which looks like [N, C, H, W]; transpose "
            "them: x.transpose(0, 2, 3, 1)."
        )
    if images.dtype == np.uint8 and images.max() == 1:
        raise UserError(f"{name}: expected uint8 images in [0, 255], received none above 1; multiply by 255.")
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        bad = int((~np.isfinite(images).all(axis=(1, 2, 3))).sum())
        raise UserError(
            f"{name}: expected floats in [0, 1], received NaN or infinity in {bad} of {len(images)} images."
        )
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"{name}: expected uint8 images in [0, 255] or floats in [0, 1], received floats in "
            f"[{images.min():g}, {images.max():g}]; cast to uint8 or divide by 255."
        )
    if labels.min() < 0:
        raise UserError(f"{name}: expected labels >= 0, received {labels.min()}.")
