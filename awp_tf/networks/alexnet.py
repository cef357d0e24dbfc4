"""The AlexNet-like network of GPM and FS-DGPM, for split CIFAR."""

from collections.abc import Sequence
from typing import Any

import keras

from awp_tf.infra.errors import at_least
from awp_tf.networks.bias_free import dense_head
from awp_tf.networks.layers import CHANNELS_LAST, BatchNorm, normalized_images, torch_init


def alexnet(
    *,
    shape: Sequence[int],
    classes: int,
    width: int = 64,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
) -> keras.Model:
    """Images in [0, 1] to logits: three convolutions, two dense layers, no biases (danruod/FS-DGPM).

    Args:
        shape: Height, width, channels; height and width at least 12.
        classes: How many logits.
        width: Channels of the first convolution (64); the others have 2 and 4 times, the dense layers 32 times as many.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are.

    Raises:
        UserError: A size is too small.

    Example:
        >>> from awp_tf.networks import alexnet
        >>> alexnet(shape=(32, 32, 3), classes=100, width=8).output.shape
        (None, 100)
    """
    at_least("alexnet.shape", min(shape[:2]), 12)
    at_least("alexnet.width", width, 1)
    size = min(shape[:2])
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    x = _stage(x, width, size // 8, 0.2, norm=False, name="conv1")
    x = _stage(x, 2 * width, size // 10, 0.2, norm=True, name="conv2")
    x = _stage(x, 4 * width, 2, 0.5, norm=False, name="conv3")
    hidden = {"fc1": 32 * width, "fc2": 32 * width}
    return keras.Model(inputs, dense_head(x, hidden, classes, torch_init, dropout=0.5), name="alexnet")


def _stage(x: Any, filters: int, size: int, rate: float, *, norm: bool, name: str) -> Any:
    x = keras.layers.Conv2D(
        filters, size, data_format=CHANNELS_LAST, use_bias=False, kernel_initializer=torch_init(), name=name
    )(x)
    x = BatchNorm(name=f"{name}.bn")(x) if norm else x
    x = keras.layers.Dropout(rate, name=f"{name}.dropout")(keras.layers.ReLU(name=f"{name}.relu")(x))
    return keras.layers.MaxPooling2D(data_format=CHANNELS_LAST, name=f"{name}.pool")(x)
