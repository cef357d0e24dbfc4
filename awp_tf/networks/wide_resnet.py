"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016) in the variant of the AWP authors."""

from collections.abc import Sequence
from typing import Any

import keras

from awp_tf.infra.errors import UserError, at_least, one_of
from awp_tf.networks.convolution import conv
from awp_tf.networks.layers import (
    ACTIVATIONS,
    CHANNELS_LAST,
    at_least_float32,
    bn_activation,
    normalized_images,
    torch_init,
)


def wide_resnet(
    *,
    shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    depth: int = 34,
    width: int = 10,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
    synchronized: bool = False,
    activation: str = "relu",
) -> keras.Model:
    """Images in [0, 1] to logits; 46,160,474 parameters at the defaults, 36,479,194 at depth 28.

    Args:
        shape: Height, width, channels.
        classes: How many logits.
        depth: 6n + 4 layers.
        width: The widening factor k.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are (TRADES, MART).
        synchronized: Whether BatchNorm shares its statistics between replicas.
        activation: After BatchNorm; one of awp_tf.networks.layers.ACTIVATIONS.

    Returns:
        A network whose layers are named as the modules of the PyTorch reference (without the unused
        `sub_block1` of some of its checkpoints).

    Raises:
        UserError: depth is not 6n + 4, or a size is not a whole number >= 1, or the activation is not known.
    """
    at_least("wide_resnet.width", width, 1)
    one_of("wide_resnet.activation", activation, ACTIVATIONS)
    at_least("wide_resnet.depth", depth, 10)
    if (depth - 4) % 6:
        raise UserError(f"wide_resnet.depth: expected 6n + 4 (16, 22, 28, 34, ...), received {depth}.")
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    x = conv(x, 16, initializer=_kaiming_fan_out(), name="conv1")
    for group in range(3):
        for index in range((depth - 4) // 6):
            stride = 2 if group > 0 and index == 0 else 1
            x = _block(
                x,
                16 * width * 2**group,
                stride,
                activation,
                synchronized=synchronized,
                name=f"block{group + 1}.layer.{index}",
            )
    x = bn_activation(x, activation, synchronized=synchronized, name="bn1")
    x = keras.layers.GlobalAveragePooling2D(CHANNELS_LAST, name="pool")(x)
    logits = keras.layers.Dense(
        classes,
        kernel_initializer=torch_init(),
        dtype=at_least_float32(),
        name="fc",
    )(x)
    return keras.Model(inputs, logits, name=f"wide_resnet_{depth}_{width}")


def _block(x: Any, filters: int, stride: int, activation: str, *, synchronized: bool, name: str) -> Any:
    """Two 3x3 convolutions; a changed width is projected from the activated input, without BatchNorm."""
    h = bn_activation(x, activation, synchronized=synchronized, name=f"{name}.bn1")
    if x.shape[-1] != filters:
        x = conv(h, filters, size=1, stride=stride, initializer=_kaiming_fan_out(), name=f"{name}.convShortcut")
    h = conv(h, filters, stride=stride, initializer=_kaiming_fan_out(), name=f"{name}.conv1")
    h = bn_activation(h, activation, synchronized=synchronized, name=f"{name}.bn2")
    h = conv(h, filters, initializer=_kaiming_fan_out(), name=f"{name}.conv2")
    return keras.layers.Add(name=f"{name}.add")([h, x])


def _kaiming_fan_out() -> keras.initializers.Initializer:
    """N(0, 2 / (k^2 out)), not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
