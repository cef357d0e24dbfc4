"""PreActResNet-18 (He et al., ECCV 2016) in the variant of the AWP authors."""

from collections.abc import Sequence
from typing import Any

import keras

from awp_tf.infra.errors import at_least, one_of
from awp_tf.networks.convolution import conv
from awp_tf.networks.layers import (
    ACTIVATIONS,
    CHANNELS_LAST,
    at_least_float32,
    bn_activation,
    normalized_images,
    torch_init,
)


def preact_resnet18(
    *,
    shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    width: int = 64,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
    synchronized: bool = False,
    activation: str = "relu",
) -> keras.Model:
    """Images in [0, 1] to logits; 11,172,170 parameters at the defaults.

    Args:
        shape: Height, width, channels.
        classes: How many logits.
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are (TRADES, MART).
        synchronized: Whether BatchNorm shares its statistics between replicas.
        activation: After BatchNorm; one of awp_tf.networks.layers.ACTIVATIONS.

    Returns:
        A network whose layers are named as the modules of the PyTorch reference.

    Raises:
        UserError: A size is not a whole number >= 1, or the activation is not known.

    Example:
        >>> from awp_tf.networks import preact_resnet18
        >>> preact_resnet18(shape=(32, 32, 3), classes=10, width=64).count_params() // 10**6
        11
    """
    at_least("preact_resnet18.width", width, 1)
    one_of("preact_resnet18.activation", activation, ACTIVATIONS)
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    x = conv(x, width, initializer=torch_init(), name="conv1")
    for stage in range(4):
        for index in range(2):
            stride = 2 if stage > 0 and index == 0 else 1
            x = _block(
                x, width * 2**stage, stride, activation, synchronized=synchronized, name=f"layer{stage + 1}.{index}"
            )
    x = bn_activation(x, activation, synchronized=synchronized, name="bn")
    x = keras.layers.GlobalAveragePooling2D(CHANNELS_LAST, name="pool")(x)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=torch_init(),
        bias_initializer=keras.initializers.RandomUniform(-(x.shape[-1] ** -0.5), x.shape[-1] ** -0.5),
        dtype=at_least_float32(),
        name="linear",
    )(x)
    return keras.Model(inputs, logits, name="preact_resnet18")


def _block(x: Any, filters: int, stride: int, activation: str, *, synchronized: bool, name: str) -> Any:
    """Two 3x3 convolutions; a changed shape is projected from the activated input, without BatchNorm."""
    h = bn_activation(x, activation, synchronized=synchronized, name=f"{name}.bn1")
    if stride != 1 or x.shape[-1] != filters:
        x = conv(h, filters, size=1, stride=stride, initializer=torch_init(), name=f"{name}.shortcut.0")
    h = conv(h, filters, stride=stride, initializer=torch_init(), name=f"{name}.conv1")
    h = bn_activation(h, activation, synchronized=synchronized, name=f"{name}.bn2")
    h = conv(h, filters, initializer=torch_init(), name=f"{name}.conv2")
    return keras.layers.Add(name=f"{name}.add")([h, x])
