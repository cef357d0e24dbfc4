"""Reads folders of class folders: which files are images, what is left out, and every format as its pixels."""

import collections
import functools
import io
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import tensorflow as tf

from awp_tf.data.stored import Decoded, Images
from awp_tf.infra.errors import UserError
from awp_tf.infra.memory import GIB

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_PNG_DEPTH = 24  # which byte of a file says of how many bits a value is
_OF_SYSTEMS = (
    *("__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin", "system volume information"),
    *("thumbs.db", "desktop.ini"),
)


def class_names(root: pathlib.Path) -> list[str]:
    """The class folders of root, in order; hidden ones and those that systems make (.ipynb_checkpoints) are none.

    Raises:
        UserError: A name is no text (not UTF-8).
    """
    found = root.iterdir() if root.is_dir() else ()
    names = sorted(folder.name for folder in found if folder.is_dir() and _is_visible(folder))
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{root}: expected class folders with names in UTF-8, received {name!r}; rename it."
            ) from None
    return names


def part_of(root: pathlib.Path, part: str) -> pathlib.Path:
    """The folder of a part, "train" or "test"; ImageNet calls the images that everybody tests on val."""
    names = (part, "val") if part == "test" else (part,)
    return next((root / name for name in names if (root / name).is_dir()), root / part)


def parts_of(root: pathlib.Path) -> list[pathlib.Path]:
    """The folders of the training images, the test images and, where there are such beside them, the validation's."""
    found = [part_of(root, "train"), part_of(root, "test")]
    return [*found, root / "val"] if root / "val" not in found and class_names(root / "val") else found


def is_undivided(root: pathlib.Path) -> bool:
    """Whether root holds class folders, and none for a part of the images: train, test, val."""
    names = class_names(root)
    return bool(names) and not {"train", "test", "val"} & {name.lower() for name in names}


def read(
    root: pathlib.Path, names: Sequence[str], size: int, channels: int, room: int | None = None
) -> tuple[Images, np.ndarray]:
    """The images of root/<class>/* and their labels, and a line about the files that were left out.

    Args:
        root: For instance data/train.
        names: Of the classes, which labels count through.
        size: Height and width that all images are resized to.
        channels: 3 for colour, 1 for grey.
        room: Bytes that images may take; of more, so many are kept, and the others decoded when they are needed. None
            is as much as it takes.

    Returns:
        uint8 [N, size, size, channels] and int32 [N].

    Raises:
        UserError: A class has no image, or a file cannot be decoded (it is named).
    """
    found = [(file, y) for y, name in enumerate(names) for file in _images(root, name)]
    _say(root, names, [file for file, _ in found])
    labels = np.array([y for _, y in found], np.int32)
    total = len(found) * size * size * channels
    files, shape = [file for file, _ in found], (size, size, channels)
    kept = 0 if room is None or total <= room else room  # what is read whole is not kept twice
    images = Decoded(files, lambda file: decode(file, size, channels), shape, kept, _name_and_size)
    if room is None or total <= room:
        return images[:], labels
    print(
        f"{_printable(root)}: {len(found):,} images, {total / GIB:.1f} GiB: decoded when they are needed, "
        f"{room / GIB:.1f} GiB of them kept in memory"
    )
    return images, labels


def read_unlabelled(root: pathlib.Path, size: int, channels: int) -> np.ndarray:
    """The images in a folder and in its class folders, where it has some; uint8 [N, size, size, channels].

    Args:
        root: The folder.
        size: Height and width that all images are resized to.
        channels: 3 for colour, 1 for grey.

    Raises:
        UserError: It holds no image, or a file cannot be decoded (it is named).
    """
    places = [root, *(root / name for name in class_names(root))]
    files = [file for place in places for file in sorted(place.iterdir()) if _is_visible(file)]
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(
            f"{_printable(root)}: expected images ({', '.join(SUFFIXES)}) in it or in its class folders, received none."
        )
    images = np.empty((len(found), size, size, channels), np.uint8)
    for place, file in enumerate(found):
        images[place] = decode(file, size, channels)
    return images


def decode(file: pathlib.Path, size: int, channels: int) -> np.ndarray:
    """An image file as uint8 [size, size, channels]; transparency and EXIF rotation are ignored, as in serving.

    Raises:
        UserError: It is no image that can be read.
    """
    try:
        with tf.device("CPU:0"):  # a GPU would take what it can of this, one image at a time, and wait for its training
            content = file.read_bytes()
            if content[:4] == b"\x89PNG" and content[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10":
                _say_of_16_bits(str(file.parent))
            decoded: np.ndarray = _decoded(content, size, channels).numpy()
            return decoded
    except FileNotFoundError as error:
        raise _gone(file) from error
    except (OSError, ValueError, tf.errors.OpError, PIL.Image.DecompressionBombError) as error:
        said = getattr(error, "strerror", None)  # of the system, not of a decoder
        reason = f"cannot be read ({said})" if said else "this is not, or not whole"
        raise UserError(f"{_printable(file)}: expected a PNG, JPEG, WebP, BMP or GIF image, which {reason}.") from error


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """A uint8 image [h, w, C] of any size as [height, width, C]: bilinear, antialiased, rounded."""
    real = tf.image.resize(image, (height, width), antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(real, 0, 255)), tf.uint8)


def _decoded(content: bytes, size: int, channels: int) -> tf.Tensor:
    """PNG and JPEG by TensorFlow, exactly as a server decodes them; others by Pillow where TensorFlow cannot."""
    if content[:2] == b"BM":  # TensorFlow takes the colour indexes of a palette for grey values
        with PIL.Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
            return resize(tf.constant(pixels.reshape(*image.size[::-1], channels)), size, size)
    # Of WebP and GIF TensorFlow gives colour only.
    colour_only = content[:3] == b"GIF" or content[:4] == b"RIFF"
    return _decoder(channels, colour_only)(tf.constant(content), tf.constant(size))


@functools.cache
def _say_of_16_bits(folder: str) -> None:
    """Once a folder: what TensorFlow makes of such images, here and in serving, may be all but black."""
    print(
        f"warning: {_printable(pathlib.Path(folder))}: holds PNG images of 16 bits, of whose values the upper 8 are "
        "kept, as in serving; where images do not use the whole range, make images of 8 bits of them first.",
        file=sys.stderr,
    )


@functools.cache
def _decoder(channels: int, colour_only: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """One graph from a file's content and a size to pixels: a dozen calls of single operations take longer."""

    def decoder(content: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            found = 3 if colour_only else channels
            image = tf.ensure_shape(
                tf.io.decode_image(content, channels=found, expand_animations=False), [None, None, found]
            )
            image = tf.image.rgb_to_grayscale(image) if found > channels else image
            fits = tf.reduce_all(tf.shape(image)[:2] == size)  # resizing would change nothing
            return tf.cond(fits, lambda: image, lambda: resize(image, size, size))

    traced: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = tf.function(decoder, autograph=False).get_concrete_function(
        tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)
    )
    return traced


def _images(root: pathlib.Path, name: str) -> list[pathlib.Path]:
    files = [file for file in sorted((root / name).iterdir()) if _is_visible(file)] if (root / name).is_dir() else []
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not images:
        kinds = ", ".join(_kinds(files)) or "nothing"
        raise UserError(
            f"{_printable(root)}: expected images ({', '.join(SUFFIXES)}) in every class folder, received none in "
            f"{name!r} (it holds {kinds})."
        )
    return images


def _say(root: pathlib.Path, names: Sequence[str], images: Sequence[pathlib.Path]) -> None:
    """Two lines at most: of which kinds the images are where there are several, and what was left out."""
    kinds = _kinds(images)
    if len(kinds) > 1:
        print(f"{_printable(root)}: {len(images):,} images: {', '.join(kinds)}")
    taken = set(images)
    everything = (file for name in names for file in (root / name).iterdir() if _is_visible(file))
    left_out = [file for file in everything if file not in taken]
    if left_out:
        print(f"{_printable(root)}: {len(left_out):,} files or folders left out: {', '.join(_kinds(left_out))}")


def _kinds(files: Sequence[pathlib.Path]) -> list[str]:
    """How many there are of each kind: "10 .webp"."""
    kinds = ("folders" if file.is_dir() else file.suffix.lower() or "without a suffix" for file in files)
    return [f"{count:,} {kind}" for kind, count in collections.Counter(kinds).most_common()]


def _name_and_size(file: pathlib.Path) -> str:
    """What stands for a file's image."""
    try:
        return f"{file.parent.name}/{file.name} {file.stat().st_size}"
    except FileNotFoundError as error:
        raise _gone(file) from error


def _gone(file: pathlib.Path) -> UserError:
    return UserError(f"{_printable(file)}: cannot be read; it is a link to a file that is not there.")


def _is_visible(path: pathlib.Path) -> bool:
    return not path.name.startswith(".") and path.name.lower() not in _OF_SYSTEMS


def _printable(path: pathlib.Path) -> str:
    """A path that can be printed."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
