"""The LeNet-like network of FS-DGPM, for CIFAR-100's superclasses."""

from collections.abc import Sequence
from typing import Any

import keras

from awp_tf.infra.errors import at_least
from awp_tf.networks.bias_free import dense_head
from awp_tf.networks.layers import CHANNELS_LAST, BatchNorm, normalized_images, torch_init


def lenet(
    *,
    shape: Sequence[int],
    classes: int,
    width: int = 20,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
) -> keras.Model:
    """Images in [0, 1] to logits: two convolutions with BatchNorm, two dense layers, no biases (danruod/FS-DGPM).

    Args:
        shape: Height, width, channels; height and width at least 8.
        classes: How many logits.
        width: Channels of the first convolution (20); the second has 2.5, the dense layers 40 and 25 times as many.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are.

    Raises:
        UserError: A size is too small.

    Example:
        >>> from awp_tf.networks import lenet
        >>> lenet(shape=(32, 32, 3), classes=100).output.shape
        (None, 100)
    """
    at_least("lenet.shape", min(shape[:2]), 8)
    at_least("lenet.width", width, 2)
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    x = _stage(x, width, name="conv1")
    x = _stage(x, 5 * width // 2, name="conv2")
    hidden = {"fc1": 40 * width, "fc2": 25 * width}
    return keras.Model(inputs, dense_head(x, hidden, classes, torch_init), name="lenet")


def _stage(x: Any, filters: int, *, name: str) -> Any:
    settings = {"padding": "same", "data_format": CHANNELS_LAST, "use_bias": False, "name": name}
    x = keras.layers.Conv2D(filters, 5, kernel_initializer=torch_init(), **settings)(x)
    x = keras.layers.ReLU(name=f"{name}.relu")(BatchNorm(name=f"{name}.bn")(x))
    # PyTorch's padding of 1 on both sides: of activations >= 0, zeros are as good as its -inf.
    x = keras.layers.ZeroPadding2D(1, CHANNELS_LAST, name=f"{name}.pad")(x)
    return keras.layers.MaxPooling2D(3, 2, data_format=CHANNELS_LAST, name=f"{name}.pool")(x)
