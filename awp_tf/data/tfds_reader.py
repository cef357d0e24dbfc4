"""Reads tensorflow-datasets, and says quickly and plainly why it cannot."""

import concurrent.futures
import difflib
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from awp_tf.data import records
from awp_tf.data.folders import resize
from awp_tf.data.stored import Images
from awp_tf.infra.errors import UserError, first_line

_PROBE = "https://storage.googleapis.com"
_PROBE_SECONDS = 5.0


def read(
    name: str, data_dir: str | None, size: int | None = None, room: int | None = None
) -> tuple[list[Any], list[str]]:
    """(Splits, class names); a split is (images, labels): train, test (else validation), validation beside a test.

    Raises:
        UserError: See awp_tf.data.sources.tfds_source.
    """
    import tensorflow_datasets as tfds  # noqa: PLC0415 (it takes seconds)

    builder = _builder(tfds, name, data_dir)
    splits = builder.info.splits or ("train", "test")
    parts = ["train", *(part for part in ("test", "validation") if part in splits)]
    if len(parts) < 2 or not set(parts) <= set(splits) or builder.info.supervised_keys != ("image", "label"):
        raise UserError(
            f"{name}: expected an image classification set with splits train and test; this is another kind."
        )
    if not builder.is_prepared():
        _download(builder, name)
    image, label = builder.info.features["image"], builder.info.features["label"]
    if not np.issubdtype(label.np_dtype, np.integer) or label.shape:
        raise UserError(f"{name}: expected labels that are whole numbers, one an image, received {label}.")
    if image.np_dtype == np.uint16:
        raise UserError(f"{name}: expected images of 8 bits (or floats in [0, 1]), received 16 bits.")
    found = [_split(tfds, builder, name, split, size, room) for split in parts]
    if len(found) > 2 and (found[1][1] < 0).all():  # ImageNet's test images have no labels
        del found[1]
    return found, list(getattr(label, "names", None) or [])


def _builder(tfds: Any, name: str, data_dir: str | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    # No such set, no name of a set at all, or none of this version.
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" ({first_line(error)})"
        raise UserError(
            f"tfds_source.name: expected a data set of tensorflow-datasets, received {name!r}.{hint}"
        ) from error


def _download(builder: Any, name: str) -> None:
    if not _online():
        raise UserError(
            f"{name}: not prepared in {builder.data_dir}, and there is no network to download it. Set TFDS_DATA_DIR "
            "to a folder that has it, or add gin/digits.gin for the embedded handwritten digits."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises many kinds: a server's answer, a checksum, an archive, a disk
        raise UserError(f"{name}: could not be downloaded to {builder.data_dir}; {first_line(error)}") from error


def _online() -> bool:
    """Whether the world answers within seconds (TFDS itself retries for minutes)."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    probe = pool.submit(urllib.request.urlopen, _PROBE, timeout=_PROBE_SECONDS)
    try:
        probe.result(timeout=_PROBE_SECONDS + 1).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, concurrent.futures.TimeoutError):
        return False
    finally:
        pool.shutdown(wait=False)
    return True


def _split(
    tfds: Any, builder: Any, name: str, split: str, size: int | None, room: int | None
) -> tuple[Images, np.ndarray]:
    """Images and labels, in memory where they fit into room; as TFRecord files that is one pass, in order."""
    info, by_index = builder.info.splits[split], builder.info.file_format.value == records.FORMAT
    if not by_index and (room is None or _bytes(builder, split, size) <= room):
        return _load(tfds, builder, split, size)
    if not by_index:
        records.convert(name, info)
    return records.read(name, builder, split, size, sys.maxsize if room is None else room)


def _bytes(builder: Any, split: str, size: int | None) -> int:
    """How much memory the images take; those of several sizes at least what their files do."""
    image, info = builder.info.features["image"], builder.info.splits[split]
    height, width, channels = image.shape if size is None else (size, size, image.shape[-1])
    if None in (height, width, channels):
        return int(info.num_bytes)
    return int(info.num_examples * height * width * channels * np.dtype(image.np_dtype).itemsize)


def _load(tfds: Any, builder: Any, split: str, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    try:
        data = builder.as_dataset(split=split, as_supervised=True)
        if size is not None:
            data = data.map(lambda image, label: (resize(image, size, size), label))
        pairs = list(tfds.as_numpy(data.batch(1000)))
        return np.concatenate([images for images, _ in pairs]), np.concatenate([labels for _, labels in pairs])
    except Exception as error:  # TFDS and TF raise many kinds for broken or ragged files
        several = "images of several sizes are resized with tfds_source.size = 64, say"
        raise UserError(
            f"{builder.name} ({split}): expected readable images of one size ({several}); {first_line(error)}"
        ) from error
