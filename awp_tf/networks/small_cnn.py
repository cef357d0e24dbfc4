"""A small convolutional network without BatchNorm, for small images."""

from collections.abc import Sequence

import keras

from awp_tf.infra.errors import at_least, one_of
from awp_tf.networks.layers import ACTIVATIONS, CHANNELS_LAST, at_least_float32, normalized_images


def small_cnn(
    *,
    shape: Sequence[int],
    classes: int,
    width: int = 32,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
    activation: str = "relu",
) -> keras.Model:
    """Images in [0, 1] to logits: four 3x3 convolutions, two poolings, two dense layers.

    Args:
        shape: Height, width, channels; height and width at least 4.
        classes: How many logits.
        width: Channels of the first two convolutions; the others have twice as many.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are (TRADES, MART).
        activation: Of the convolutions and the first dense layer; one of awp_tf.networks.layers.ACTIVATIONS.

    Raises:
        UserError: A size is too small, or the activation is not known.

    Example:
        >>> from awp_tf.networks import small_cnn
        >>> small_cnn(shape=(8, 8, 1), classes=10).output.shape
        (None, 10)
    """
    at_least("small_cnn.width", width, 1)
    one_of("small_cnn.activation", activation, ACTIVATIONS)
    at_least("small_cnn.shape", min(shape[:2]), 4)
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    for stage, filters in enumerate((width, 2 * width), start=1):
        for index in (1, 2):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding="same",
                data_format=CHANNELS_LAST,
                activation=activation,
                kernel_initializer="he_normal",
                name=f"conv{stage}.{index}",
            )(x)
        x = keras.layers.MaxPooling2D(data_format=CHANNELS_LAST, name=f"pool{stage}")(x)
    x = keras.layers.Flatten(CHANNELS_LAST, name="flatten")(x)
    x = keras.layers.Dense(8 * width, activation=activation, kernel_initializer="he_normal", name="dense")(x)
    logits = keras.layers.Dense(classes, dtype=at_least_float32(), name="logits")(x)
    return keras.Model(inputs, logits, name="small_cnn")
