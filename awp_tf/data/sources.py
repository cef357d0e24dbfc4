"""Where images come from. Every source is read whole into memory and checked before training."""

import dataclasses
import functools
import hashlib
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import sklearn.datasets
import tensorflow as tf

from awp_tf.checks import UserError, at_least
from awp_tf.data import tfds_reader

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


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
    """The 8x8 handwritten digits that come with scikit-learn: 1,437 to train on, 360 to test."""
    data = sklearn.datasets.load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    order = np.random.RandomState(0).permutation(len(images))
    everything = Split(images, data.target.astype(np.int32)).take(order)
    return checked("digits", everything.take(slice(360, None)), everything.take(slice(360)), list("0123456789"))


def npz(path: str) -> Source:
    """An .npz file with x_train, y_train, x_test and y_test, as Keras' own; read without pickle.

    Raises:
        UserError: The file is missing, is not such a file, or its contents fail the checks.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            train, test = (split_of(data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test"))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        message = "an .npz file with numeric arrays x_train, y_train, x_test and y_test"
        raise UserError(f"{path}: expected {message}; {error}") from error
    return checked(path, train, test)


def tfds_source(name: str, data_dir: str | None = None) -> Source:
    """An image classification set of tensorflow-datasets, with its train and test splits.

    Args:
        name: Its TFDS name: cifar10, cifar100, svhn_cropped, mnist, fashion_mnist, ...
        data_dir: Where it is, or will be; by default TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
        UserError: There is no such set, or it is not prepared and cannot be downloaded.
    """
    train, test, class_names = tfds_reader.read(name, data_dir)
    return checked(name, split_of(*train), split_of(*test), class_names)


def image_folder(path: str, size: int, channels: int = 3) -> Source:
    """A folder with train/<class>/* and test/<class>/*: PNG, JPEG, BMP or GIF of any size.

    Args:
        path: The folder.
        size: Height and width that all images are resized to.
        channels: 3 for colour, 1 for grey.

    Raises:
        UserError: Folders are missing, or a file cannot be decoded (it is named).
    """
    at_least("image_folder.size", size, 4)
    roots = [pathlib.Path(path) / part for part in ("train", "test")]
    names = [sorted(d.name for d in root.iterdir() if d.is_dir()) if root.is_dir() else [] for root in roots]
    if not names[0] or names[0] != names[1]:
        raise UserError(
            f"{path}: expected train/<class>/ and test/<class>/ with the same classes, "
            f"received {names[0] or 'no train classes'} and {names[1] or 'no test classes'}."
        )
    train, test = (folder_split(root, names[0], size, channels) for root in roots)
    return checked(path, train, test, names[0])


def checked(name: str, train: Split, test: Split, class_names: Sequence[str] = ()) -> Source:
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
    if train.images.shape[1:] != test.images.shape[1:] or train.images.dtype != test.images.dtype:
        described = [f"{s.images.dtype} {s.images.shape[1:]}" for s in (train, test)]
        raise UserError(f"{name}: expected alike images to train and test on, received {' and '.join(described)}.")
    largest = max(int(train.labels.max()), int(test.labels.max()))
    if largest >= classes:
        raise UserError(f"{name}: expected labels in 0..{classes - 1}, received {largest}.")
    return Source(name, train, test, classes, tuple(class_names))


def spread(split: Split, count: int | None) -> Split:
    """At most count images, evenly spread over a split, always the same; None is all."""
    if count is None or count >= len(split):
        return split
    return split.take(evenly(len(split), count))


def evenly(total: int, count: int) -> np.ndarray:
    """At most count places among total, evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    """Arrays as a split: grey images get a channel, floats are float32, labels int32.

    Raises:
        UserError: Labels are no whole numbers.
    """
    images = images[..., None] if images.ndim == 3 else images
    images = images if images.dtype == np.uint8 else images.astype(np.float32)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels: expected whole numbers, received {labels.dtype}.")
    return Split(images, labels.astype(np.int32))


def check_split(name: str, split: Split) -> None:
    """Raises UserError unless images are [N, H, W, C] of uint8 or [0, 1] floats, with N labels >= 0, N > 0."""
    images, labels = split.images, split.labels
    if images.ndim != 4 or len(images) != len(labels) or not len(images):
        raise UserError(
            f"{name}: expected images [N, H, W, C] and N labels, N > 0, "
            f"received shapes {images.shape} and {labels.shape}."
        )
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"{name}: expected uint8 images in [0, 255] or floats in [0, 1], received floats in "
            f"[{images.min():g}, {images.max():g}]; cast to uint8 or divide by 255."
        )
    if labels.min() < 0:
        raise UserError(f"{name}: expected labels >= 0, received {labels.min()}.")


def folder_split(root: pathlib.Path, names: Sequence[str], size: int, channels: int) -> Split:
    """The images of root/<class>/*, for the classes in names; see image_folder."""
    files = [(f, y) for y, n in enumerate(names) for f in _files(root / n) if f.suffix.lower() in _SUFFIXES]
    if not files:
        raise UserError(f"{root}: expected {', '.join(_SUFFIXES)} files in its class folders, received none.")
    images = np.stack([_decode(f, size, channels) for f, _ in files])
    return Split(images, np.array([y for _, y in files], np.int32))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _decode(file: pathlib.Path, size: int, channels: int) -> np.ndarray:
    try:
        content = tf.io.read_file(str(file))
        colour_only = content.numpy()[:2] in (b"BM", b"GI")  # TensorFlow decodes neither BMP nor GIF to grey
        image = tf.io.decode_image(content, channels=3 if colour_only else channels, expand_animations=False)
    except tf.errors.OpError as error:
        raise UserError(f"{file}: expected a PNG, JPEG, BMP or GIF image, which this is not.") from error
    if colour_only and channels == 1:
        image = tf.image.rgb_to_grayscale(image)
    return resized(image, size, size).numpy()


def resized(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """A uint8 image [h, w, C] of any size as [height, width, C]: bilinear, antialiased, rounded."""
    real = tf.image.resize(image, (height, width), antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(real, 0, 255)), tf.uint8)
