"""Images without labels, by a name as a person types it."""

import numpy as np

from awp_tf.data import folders
from awp_tf.data.by_name import data_set
from awp_tf.data.extra import check_parts
from awp_tf.data.splits import split_of
from awp_tf.infra import npz
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local

_NAMES = ("image", "x_train", "x_test")


def unlabelled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Images, uint8 in [0, 255] or float32 in [0, 1], [N, H, W, C]; labels that they may have are left out.

    Args:
        name: An .npz file with `image`, `x_train`, `x_test` or one array only, which stays in the file unless it is
            compressed; a folder of images, in class folders or not, resized to shape; "digits" or else a set of
            tensorflow-datasets, of which the training images are taken.
        shape: Of the images that are wanted, (H, W, C).

    Raises:
        UserError: There is no such data, or its images are not such images.
    """
    path = local(name)
    if name.endswith(".npz"):
        images = npz.read(path, _member(name))
    elif path.is_dir():
        height, width, channels = shape
        if height != width or channels not in (1, 3):
            raise UserError(f"{name}: expected a network for square images to read a folder for, received {shape}.")
        images = folders.read_unlabelled(path, height, channels)
    else:
        images = np.asarray(data_set(name, ("train",), shape).splits["train"].images)
    split = split_of(images, np.zeros(images.shape[:1], np.int32), name)
    check_parts(name, split)
    if split.images.shape[1:] != shape:
        raise UserError(
            f"{name}: expected images of {list(shape)}, which the network takes, received "
            f"{list(split.images.shape[1:])}; resize them, or take a network for those."
        )
    return split.images  # type: ignore[return-value]  # as it came: an array, mapped or not


def _member(name: str) -> str:
    """Which array of an .npz file holds the images."""
    there = npz.names(local(name))
    known = [member for member in _NAMES if member in there] or there[: len(there) == 1]
    if not known:
        raise UserError(
            f"{name}: expected images under {', '.join(_NAMES)}, or one array only, received "
            f"{', '.join(there) or 'nothing'}."
        )
    return known[0]
