"""A small convolutional network without BatchNorm, for small images."""

from collections.abc import Sequence

import keras

from awp_tf.checks import at_least
from awp_tf.networks.layers import Normalize, at_least_float32


def small_cnn(
    *,
    shape: Sequence[int],
    classes: int,
    width: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """Images in [0, 1] to logits: four 3x3 convolutions, two poolings, two dense layers.

    Args:
        shape: Height, width, channels; height and width at least 4.
        classes: How many logits.
        width: Channels of the first two convolutions; the others have twice as many.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.

    Raises:
        UserError: A size is too small.
    """
    at_least("small_cnn.width", width, 1)
    at_least("small_cnn.shape", min(shape[:2]), 4)
    inputs = keras.Input(tuple(shape), name="images", dtype=at_least_float32())
    x = Normalize(mean, std, name="normalize", dtype=at_least_float32())(inputs)
    for stage, filters in enumerate((width, 2 * width), start=1):
        for index in (1, 2):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"conv{stage}.{index}",
            )(x)
        x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(8 * width, activation="relu", kernel_initializer="he_normal", name="dense")(x)
    logits = keras.layers.Dense(classes, dtype=at_least_float32(), name="logits")(x)
    return keras.Model(inputs, logits, name="small_cnn")
