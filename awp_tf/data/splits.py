"""Images with their labels: held in memory, or read when they are asked for; and what they have to be."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from awp_tf.data.stored import Images, chosen, digest_of, in_memory, known_by_name
from awp_tf.infra.errors import UserError

_MOST_LABEL = 10**9  # beyond, they name something else, and int32 would soon end
_LOOKED_AT = 64


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8 in [0, 255] or float32 in [0, 1], shape [N, H, W, C]; an array, or what reads rows like one.
        labels: int32, shape [N].
    """

    images: Images
    labels: np.ndarray

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at index; none is read now that is not in memory."""
        return Split(chosen(self.images, index), self.labels[index])

    @property
    def identity(self) -> tuple[str, str]:
        """("images", how many and their digest); or ("files", ...), of names and sizes, which is not compared to it."""
        kind, of = ("files", "names and sizes, ") if known_by_name(self.images) else ("images", "")
        return kind, f"{len(self)}, {of}SHA-256 {self.digest()}"

    def digest(self) -> str:
        """SHA-256 of all images (of their files' names and sizes, where they are decoded when needed) and labels."""
        total = hashlib.sha256(f"{self.images.dtype} {self.images.shape}".encode())
        digest_of(self.images, total)
        total.update(np.ascontiguousarray(self.labels).data)
        return total.hexdigest()


def split_of(images: np.ndarray, labels: np.ndarray, name: str) -> Split:
    """Arrays as a split: grey images get a channel, floats are float32, labels int32.

    Args:
        images: Shape [N, H, W, C] or [N, H, W], numbers.
        labels: Shape [N] or [N, 1], whole numbers.
        name: Of the data, for messages.

    Raises:
        UserError: Labels are no whole numbers that could count classes, or images no numbers.
    """
    if images.dtype.kind not in "biuf":
        raise UserError(f"{name}: expected images of numbers, received {images.dtype}.")
    if images.dtype.kind in "iu" and images.dtype != np.uint8 and len(images) and int(images.max()) > 255:
        raise UserError(
            f"{name}: expected images of uint8 in [0, 255] or floats in [0, 1], received {images.dtype} up to "
            f"{images.max()}; divide by the largest value that a pixel can have, 65535 in 16 bits."
        )
    images = images[..., None] if images.ndim == 3 else images
    images = images if images.dtype == np.uint8 else images.astype(np.float32, copy=False)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(
            f"{name}: expected one label an image, a whole number, received {labels.shape}; one-hot: y.argmax(1)."
        )
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{name}: expected labels to be whole numbers, received {labels.dtype}; to number classes: "
            "np.unique(y, return_inverse=True)[1]."
        )
    if len(labels) and int(labels.max()) > _MOST_LABEL:
        raise UserError(f"{name}: expected labels 0..K-1, received {int(labels.max())}; number the classes from 0.")
    return Split(images, labels.astype(np.int32))


def divide(name: str, split: Split, class_names: Sequence[str], fraction: float) -> tuple[Split, Split]:
    """(Training images, test images): that fraction of every class is for the test, one at least, always the same.

    Raises:
        UserError: A class has too few images.
    """
    rng, for_test = np.random.RandomState(0), np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        places = rng.permutation(np.flatnonzero(split.labels == label))
        count = max(1, round(fraction * len(places)))
        if count == len(places):
            raise UserError(
                f"{name}: expected images to train on and to test on in every class, received {len(places)} of "
                f"{class_names[label]!r}, of which {count} would be for the test."
            )
        for_test[places[:count]] = True
    return split.take(np.flatnonzero(~for_test)), split.take(np.flatnonzero(for_test))


def check_split(name: str, split: Split) -> None:
    """Raises UserError unless images are [N, H, W, C] of uint8 or [0, 1] floats, with N labels >= 0, N > 0.

    Of what is not in memory, some images are looked at, evenly spread.
    """
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
    _check_pixels(name, np.asarray(images if in_memory(images) else images[evenly(len(images), _LOOKED_AT)]))
    if labels.min() < 0:
        raise UserError(f"{name}: expected labels >= 0, received {labels.min()}.")


def _check_pixels(name: str, images: np.ndarray) -> None:
    if images.dtype == np.uint8 and images.max() == 1:
        raise UserError(f"{name}: expected uint8 images in [0, 255], received none above 1; multiply by 255.")
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        bad = int((~np.isfinite(images).all(axis=(1, 2, 3))).sum())
        raise UserError(
            f"{name}: expected floats in [0, 1], received NaN or infinity in {bad} of {len(images)} images."
        )
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        least, most = images.min(), images.max()
        advice = "divide by 255" if least >= 0 else "bring [-1, 1] there by (x + 1) / 2"
        raise UserError(
            f"{name}: expected uint8 images in [0, 255] or floats in [0, 1], received others in "
            f"[{least:g}, {most:g}]; {advice}."
        )
    if images.dtype != np.uint8 and 0 < images.max() <= 1 / 255:
        raise UserError(
            f"{name}: expected floats in [0, 1], received none above {images.max():g}; they were divided by 255 twice."
        )


def evenly(total: int, count: int) -> np.ndarray:
    """At most count places among total, evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)
