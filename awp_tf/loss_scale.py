"""Loss scaling: in float16 small gradients vanish, so inside the network they are larger than outside of it.

Micikevicius et al., ICLR 2018 (section 3.2) scale the loss. Here the gradient is scaled where it enters the network, at
the logits, and unscaled where it leaves it, at images and weights: whatever asks for a gradient, be it an attack, the
search for the worst weights or the descent, is handed the one it asked for.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from awp_tf.infra.keras_layers import all_layers
from awp_tf.types import Weights

PER_IMAGE = 2.0**8  # for gradients of each image's own loss: those above 255 overflow, those below 2e-10 vanish


class Scaling(Protocol):
    """What happens to gradients on their way through a network."""

    def enter(self, value: tf.Tensor) -> tf.Tensor:
        """Images or weights, as the network is to see them."""
        ...

    def leave(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits, as the loss is to see them."""
        ...


class Unscaled:
    """Leaves gradients as they are."""

    def enter(self, value: tf.Tensor) -> tf.Tensor:
        """See Scaling."""
        return value

    def leave(self, logits: tf.Tensor) -> tf.Tensor:
        """See Scaling."""
        return logits


class Scaled:
    """Inside the network gradients are `factor` times as large, outside of it logits and losses have 32 bits."""

    def __init__(self, factor: tf.Tensor | float) -> None:
        """The factor is a positive scalar."""
        self._factor = factor

    def enter(self, value: tf.Tensor) -> tf.Tensor:
        """See Scaling."""
        return _with_gradient_times(value, 1 / self._factor)

    def leave(self, logits: tf.Tensor) -> tf.Tensor:
        """See Scaling."""
        return _with_gradient_times(tf.cast(logits, tf.float32), self._factor)


def scaling(network: keras.Model, factor: tf.Tensor | float = PER_IMAGE) -> Scaling:
    """By factor for a network that computes in float16; none for others, whose range is that of float32."""
    return Scaled(factor) if in_float16(network) else Unscaled()


def in_float16(network: keras.Model) -> bool:
    """Whether any of its layers computes in float16."""
    return any(layer.compute_dtype == "float16" for layer in all_layers(network))


def settled(network: keras.Model, gradients: Weights, before: Weights, after: Weights) -> Weights:
    """The state after a step; in float16 that before, where a gradient is not finite, so that no step is taken."""
    if not in_float16(network):
        return after
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    return [tf.where(finite, new, old) for new, old in zip(after, before, strict=True)]


def all_entered(by: Scaling, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Weights, as the network is to see them."""
    return [by.enter(value) for value in values]


def _with_gradient_times(value: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    @tf.custom_gradient
    def same(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        # Gradients of embeddings may be sparse.
        return tf.identity(value), lambda g: tf.convert_to_tensor(g) * tf.cast(factor, g.dtype)

    return same(value)
