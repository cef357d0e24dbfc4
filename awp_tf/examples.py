"""What a training step is handed: images, labels and weights, as Keras hands them over, once they are known to fit."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, of_assertion
from awp_tf.threats import require_pixels


def examples(batch: tuple[tf.Tensor, ...], classes: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Images [B, H, W, C], labels int32 [B], and weights [B] or None.

    Args:
        batch: (x, y) or (x, y, sample_weight); labels of any whole type, [B] or [B, 1].
        classes: How many labels the network knows.

    Raises:
        UserError: There are no labels, or they are no whole numbers, or pixels are whole numbers.
        tf.errors.InvalidArgumentError: As the graph runs: pixels outside [0, 1], or labels outside 0..classes-1;
            plainly() makes one line of it.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    if y is None or not tf.as_dtype(y.dtype).is_integer:
        raise UserError(f"labels: expected whole numbers [B], received {getattr(y, 'dtype', 'none')}.")
    if y.shape.rank not in (None, 1) and y.shape[1:] != (1,):
        raise UserError(f"labels: expected one whole number an image, received {y.shape}; one-hot: y.argmax(1).")
    if not tf.as_dtype(x.dtype).is_floating:
        raise UserError(f"images: expected floats in [0, 1], received {tf.as_dtype(x.dtype).name}; divide by 255.")
    labels = tf.cast(tf.reshape(y, [-1]), tf.int32)
    inside = tf.reduce_all((labels >= 0) & (labels < classes))
    expected = f"labels: expected 0..{classes - 1}, as the network has {classes} outputs, received up to"
    with tf.control_dependencies([tf.debugging.Assert(inside, [expected, tf.reduce_max(labels)])]):
        labels = tf.identity(labels)
    weights = None if sample_weight is None else tf.reshape(sample_weight, [-1])
    return require_pixels(x), labels, weights


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Turns what a graph found wrong with a batch into a UserError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        raise of_assertion(error) or error from None
