"""What happens to the gradient of the global batch before the optimizer takes it: transform(gradients, weights).

It comes after the mean over all replicas, so clipping means the same on one device and on eight; Keras' own clipnorm
clips each replica's share.
"""

import dataclasses
from typing import Protocol

import tensorflow as tf

from awp_tf.infra.errors import positive
from awp_tf.types import Weights


class Transform(Protocol):
    """Changes the gradient of the global batch."""

    def __call__(self, gradients: Weights, weights: Weights) -> Weights:
        """The gradient to descend along.

        Args:
            gradients: Of the outer loss, weight decay included, one for each tensor of weights.
            weights: The current ones, not perturbed.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoTransform:
    """The gradient as it is: the null object."""

    def __call__(self, gradients: Weights, weights: Weights) -> Weights:
        """Returns gradients."""
        return gradients


@dataclasses.dataclass(frozen=True)
class ClipByGlobalNorm:
    """Scales all gradients together where their norm exceeds a limit (Pascanu et al., ICML 2013, algorithm 1).

    Attributes:
        limit: Of the norm over all tensors.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.transforms import ClipByGlobalNorm
        >>> print(ClipByGlobalNorm(1.0)([tf.constant([3.0, 4.0])], [tf.zeros([2])])[0].numpy().round(1))
        [0.6 0.8]
    """

    limit: float

    def __post_init__(self) -> None:
        """Raises UserError where the limit is not above 0."""
        positive("ClipByGlobalNorm.limit", self.limit)

    def __call__(self, gradients: Weights, weights: Weights) -> Weights:
        """See Transform."""
        clipped: Weights = tf.clip_by_global_norm(list(gradients), self.limit)[0]
        return clipped
