"""The network of La-MAML and FS-DGPM for TinyImageNet: four strided convolutions."""

from collections.abc import Sequence

import keras

from awp_tf.infra.errors import at_least
from awp_tf.networks.bias_free import dense_head
from awp_tf.networks.convolution import conv
from awp_tf.networks.layers import normalized_images


def conv4(
    *,
    shape: Sequence[int],
    classes: int,
    width: int = 160,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
) -> keras.Model:
    """Images in [0, 1] to logits: four 3x3 convolutions of stride 2, two dense layers, no biases (danruod/FS-DGPM).

    Args:
        shape: Height, width, channels; height and width at least 16.
        classes: How many logits.
        width: Channels of the convolutions (160); the dense layers have four times as many neurons.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are.

    Raises:
        UserError: A size is too small.

    Example:
        >>> from awp_tf.networks import conv4
        >>> conv4(shape=(64, 64, 3), classes=200, width=8).output.shape
        (None, 200)
    """
    at_least("conv4.shape", min(shape[:2]), 16)
    at_least("conv4.width", width, 1)
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    for number in range(1, 5):
        x = conv(x, width, stride=2, initializer=_kaiming(), name=f"conv{number}")
        x = keras.layers.ReLU(name=f"conv{number}.relu")(x)
    hidden = {"fc1": 4 * width, "fc2": 4 * width}
    return keras.Model(inputs, dense_head(x, hidden, classes, _kaiming), name="conv4")


def _kaiming() -> keras.initializers.Initializer:
    """PyTorch's kaiming_normal_, which unlike Keras' he_normal is not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
