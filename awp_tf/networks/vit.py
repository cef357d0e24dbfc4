"""A Vision Transformer for small images (Dosovitskiy et al., ICLR 2021)."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least, positive
from awp_tf.networks.layers import CHANNELS_LAST, at_least_float32, normalized_images


def vit(
    *,
    shape: Sequence[int],
    classes: int,
    patch: int = 4,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    mlp_ratio: float = 4.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
) -> keras.Model:
    """Images in [0, 1] to logits: patches as tokens, blocks of attention and MLP, the mean of the tokens, one layer.

    Normalisation comes first in each block (pre-norm); there is no dropout. The tokens are averaged, in place of one
    for the class: that is no less accurate (Beyer, Zhai and Kolesnikov, 2022, "Better plain ViT baselines"), and each
    patch has its share of the gradient that an attack follows. Attention has no biases, as in the paper's equations (5)
    to (8), though not in its code: Keras gives those of heads rank 2, and AWP would take them for kernels. It is Keras'
    own and plain, since there is no fused kernel on TensorFlow: it has second derivatives and compiles with XLA.

    Args:
        shape: Height, width, channels; height and width multiples of patch.
        classes: How many logits.
        patch: Pixels of a patch in height and width; 4 makes 64 tokens of an image of 32 x 32.
        width: Numbers a token; a multiple of heads. The default is ViT-Tiny's, at half its depth.
        depth: Blocks.
        heads: Of attention, each of width / heads numbers.
        mlp_ratio: Neurons of each block's hidden layer, in widths.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are (TRADES, MART).

    Raises:
        UserError: Patches do not divide the image, heads do not divide the width, or a size is too small.

    Example:
        >>> from awp_tf.networks import vit
        >>> vit(shape=(8, 8, 1), classes=10, patch=2, width=16, depth=1, heads=2).output.shape
        (None, 10)
    """
    _require_sizes({"patch": patch, "width": width, "depth": depth, "heads": heads}, mlp_ratio, tuple(shape))
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    x = keras.layers.Conv2D(
        width, patch, patch, "valid", CHANNELS_LAST, kernel_initializer="lecun_normal", name="patches"
    )(x)
    x = keras.layers.Reshape(((shape[0] // patch) * (shape[1] // patch), width), name="tokens")(x)
    x = Positions(name="positions")(x)
    for number in range(1, depth + 1):
        x = _block(x, heads, max(1, round(mlp_ratio * width)), name=f"block{number}")
    x = _norm("norm")(x)
    x = keras.layers.GlobalAveragePooling1D(CHANNELS_LAST, name="pool")(x)
    logits = keras.layers.Dense(classes, dtype=at_least_float32(), name="logits")(x)
    return keras.Model(inputs, logits, name="vit")


def _block(x: Any, heads: int, hidden: int, *, name: str) -> Any:
    """Tokens [B, N, D] to tokens: x + attention(norm(x)), then x + mlp(norm(x)) (the paper's equations 2 and 3)."""
    width = x.shape[-1]
    y = _norm(f"{name}.norm1")(x)
    attention = keras.layers.MultiHeadAttention(heads, width // heads, use_bias=False, name=f"{name}.attention")
    x = keras.layers.Add(name=f"{name}.add1")([x, attention(y, y)])
    y = _norm(f"{name}.norm2")(x)
    y = keras.layers.Dense(hidden, activation=gelu, name=f"{name}.mlp1")(y)
    y = keras.layers.Dense(width, name=f"{name}.mlp2")(y)
    return keras.layers.Add(name=f"{name}.add2")([x, y])


@keras.saving.register_keras_serializable(package="awp_tf")
def gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU by tanh, as in the paper's code; the exact one has no ONNX file (Erfc)."""
    return keras.activations.gelu(x, approximate=True)


def _norm(name: str) -> "LayerNorm":
    return LayerNorm(name=name, dtype=at_least_float32())


@keras.saving.register_keras_serializable(package="awp_tf")
class LayerNorm(keras.layers.Layer):
    """Layer normalisation over the last axis (Ba, Kiros and Hinton, 2016), with second derivatives that are right.

    Keras' own has wrong ones: tf.nn.moments stops the gradient of the mean inside the variance.
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        """The default is that of the paper's code.

        Args:
            epsilon: Added to the variance.
            **kwargs: As for every Keras layer.
        """
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape: Sequence[int | None]) -> None:
        """Creates gamma and beta."""
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(shape[-1],), initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalises x [..., D]."""
        centred = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta

    def get_config(self) -> dict[str, Any]:
        """What __init__ takes."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="awp_tf")
class Positions(keras.layers.Layer):
    """Adds a learnt vector to each token.

    They begin as N(0, 1), as large as tokens of normalised pixels. The 0.02 of the paper's code is for Adam: SGD takes
    long to make so small vectors tell places apart, or never does (ten epochs on the digits: 17 % right, or 93 %).
    """

    def build(self, shape: Sequence[int | None]) -> None:
        """Creates the vectors, [1, N, D]."""
        start = keras.initializers.RandomNormal(stddev=1.0)
        self.vectors = self.add_weight(name="vectors", shape=(1, *shape[1:]), initializer=start)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Tokens [B, N, D] with their places."""
        return x + self.vectors


def _require_sizes(sizes: dict[str, int], mlp_ratio: float, shape: tuple[int, ...]) -> None:
    for name, size in sizes.items():
        at_least(f"vit.{name}", size, 1)
    positive("vit.mlp_ratio", mlp_ratio)
    patch, width, heads = sizes["patch"], sizes["width"], sizes["heads"]
    if shape[0] % patch or shape[1] % patch:
        raise UserError(f"vit.patch: expected a divisor of the image's {shape[0]} x {shape[1]}, received {patch}.")
    if width % heads:
        raise UserError(f"vit.heads: expected a divisor of vit.width, {width}, received {heads}.")
