"""What TensorBoard shows of a run."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api as hparams_api

from awp_tf.infra.errors import first_line
from awp_tf.infra.files import atomic_write


class Board:
    """Writes scalars, images, text and hyper-parameters to a folder."""

    def __init__(self, folder: pathlib.Path, steps: int | None = None) -> None:
        """Appends to folder.

        Args:
            folder: Where TensorBoard looks.
            steps: What is there of later steps is taken away: a process was killed after its last checkpoint.
        """
        if steps is not None:
            for file in sorted(folder.glob("events.out.tfevents.*")):
                _shorten(file, steps)
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point of each curve."""
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)
        self._writer.flush()

    def text(self, name: str, markdown: str) -> None:
        """A page of text."""
        with self._writer.as_default():
            tf.summary.text(name, markdown, step=0)

    def hparams(self, settings: Mapping[str, str | float | int]) -> None:
        """The run's row in the HPARAMS tab."""
        with self._writer.as_default():
            hparams_api.hparams(dict(settings))

    def picture(self, name: str, pixels: tf.Tensor) -> None:
        """One picture, uint8 [height, width, 3]."""
        with self._writer.as_default():
            tf.summary.image(name, pixels[tf.newaxis], step=0)
        self._writer.flush()

    def images(self, step: int, clean: np.ndarray, adversarial: np.ndarray) -> None:
        """One picture: clean images, adversarial ones and their difference; see adversarial_grid."""
        grid = adversarial_grid(np.asarray(clean), np.asarray(adversarial))
        large = grid.repeat(4, axis=0).repeat(4, axis=1)
        with self._writer.as_default():
            tf.summary.image("validation/clean, adversarial, difference", large[np.newaxis], step)
        self._writer.flush()


def adversarial_grid(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """Three rows: clean images, adversarial ones, and their difference; each with a white frame of one pixel.

    In the difference grey is none, and black and white are each image's largest.

    Args:
        clean: In [0, 1], [N, H, W, C].
        adversarial: Theirs.

    Returns:
        Pixels in [0, 1], [3 (H + 2), N (W + 2), C].
    """
    difference = adversarial - clean
    largest = np.abs(difference).max(axis=(1, 2, 3), keepdims=True)
    stretched = np.clip(difference / (2 * largest + 1e-12) + 0.5, 0, 1)
    frame = [(0, 0), (1, 1), (1, 1), (0, 0)]
    rows = [np.pad(images, frame, constant_values=1.0) for images in (clean, adversarial, stretched)]
    return np.concatenate([np.concatenate(list(images), axis=1) for images in rows])


@contextlib.contextmanager
def not_fatal(what: str) -> Iterator[None]:
    """Nothing that is drawn may cost a result: where it fails, that is said, and work goes on."""
    try:
        yield
    except Exception as error:
        said = f"warning: {what} could not be drawn ({first_line(error)}); numbers are not affected"
        print(said, file=sys.stderr, flush=True)


def _shorten(file: pathlib.Path, steps: int) -> None:
    """Leaves the events of steps up to this one; a half-written record at the end goes, too."""
    kept, complete = [], True
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            kept.append(record)
    except tf.errors.DataLossError:
        complete = False
    early = [record for record in kept if event_pb2.Event.FromString(record).step <= steps]
    if complete and len(early) == len(kept):
        return
    with atomic_write(file) as part, tf.io.TFRecordWriter(str(part)) as writer:
        for record in early:
            writer.write(record)
