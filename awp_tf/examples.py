"""What a training step is handed: images, labels and weights, as Keras hands them over, once they are known to fit."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from awp_tf import replicas
from awp_tf.box import require_pixels
from awp_tf.infra.errors import UserError, of_assertion, of_python
from awp_tf.types import Batch


def examples(batch: tuple[tf.Tensor, ...], classes: int) -> Batch:
    """Images, labels and weights.

    Args:
        batch: (x, y) or (x, y, sample_weight); labels of any whole type, [B] or [B, 1], or probabilities of the
            classes as floats, [B, K]. Without weights, every example counts 1.
        classes: How many labels the network knows, K.

    Raises:
        UserError: There are no labels, or they are of another kind or shape, or pixels are whole numbers.
        tf.errors.InvalidArgumentError: As the graph runs: pixels outside [0, 1], labels outside 0..K-1, or
            probabilities that do not add up to 1; plainly() makes one line of it.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if y is None:
        raise UserError("labels: expected whole numbers [B], received none.")
    if not tf.as_dtype(x.dtype).is_floating:
        raise UserError(f"images: expected floats in [0, 1], received {tf.as_dtype(x.dtype).name}; divide by 255.")
    labels = _classes(y, classes) if tf.as_dtype(y.dtype).is_integer else _probabilities(y, classes, x.dtype)
    weight = tf.ones(tf.shape(x)[:1], x.dtype) if sample_weight is None else tf.reshape(sample_weight, [-1])
    return Batch(require_pixels(x), labels, tf.cast(weight, x.dtype))


def share_of(batch: Batch) -> Batch:
    """A replica's share, with its place, and weights that make a sum over it the mean over the global batch.

    As in Keras, the mean is over the examples, not over their weights; replicas may have unequal shares.
    """
    first, everything = replicas.place(tf.shape(batch.x)[0])
    mean_share = tf.cast(everything, batch.weight.dtype) / replicas.count()
    return batch._replace(weight=batch.weight / mean_share, first=first)


def _classes(y: tf.Tensor, classes: int) -> tf.Tensor:
    if y.shape.rank not in (None, 1) and y.shape[1:] != (1,):
        raise UserError(
            f"labels: expected one whole number an image, received {y.shape}; one-hot: y.argmax(1), or as floats."
        )
    labels = tf.cast(tf.reshape(y, [-1]), tf.int32)
    inside = tf.reduce_all((labels >= 0) & (labels < classes))
    expected = f"labels: expected 0..{classes - 1}, as the network has {classes} outputs, received up to"
    return _assert(inside, [expected, tf.reduce_max(labels)], labels)


def _probabilities(y: tf.Tensor, classes: int, dtype: str) -> tf.Tensor:
    if y.shape.rank != 2 or y.shape[1] != classes:
        raise UserError(
            f"labels: expected whole numbers [B], or probabilities of {classes} classes [B, {classes}], received "
            f"{tf.as_dtype(y.dtype).name} {y.shape}."
        )
    labels = tf.cast(y, dtype)
    sums = tf.reduce_sum(labels, axis=-1)
    fit = tf.reduce_all(labels >= 0) & tf.reduce_all(tf.abs(sums - 1) < 1e-3)
    expected = "labels: expected probabilities >= 0 that add up to 1, received a smallest of"
    return _assert(fit, [expected, tf.reduce_min(labels), "and sums up to", tf.reduce_max(sums)], labels)


def _assert(holds: tf.Tensor, message: list[object], value: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(holds, message)]):
        return tf.identity(value)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Turns what a graph found wrong with a batch, or a reader with a file, into a UserError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise of_assertion(error) or of_python(error) or error from None
    except tf.errors.UnknownError as error:
        raise of_python(error) or error from None
