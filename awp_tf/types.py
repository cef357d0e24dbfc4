"""The architecture in a few lines: what the parts hand to each other.

Shapes: B batch, H W C image, K classes. Pixels are floats in [0, 1]; normalisation is the network's first layer.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

Predict = Callable[[tf.Tensor], tf.Tensor]  # images [B, H, W, C] to logits [B, K]
Objective = Callable[[tf.Tensor], tf.Tensor]  # images [B, H, W, C] to what an attack maximises, [B]
Weights = Sequence[tf.Tensor]  # of a network, in the order of its variables
Gradient = Callable[[Weights], Weights]  # of the outer loss, at any weights


Labelled = tuple[tf.Tensor, tf.Tensor]  # images [B, H, W, C] and labels [B]


class Batch(NamedTuple):
    """What a training step is given, or a replica's share of it.

    Attributes:
        x: Images, [B, H, W, C].
        y: Labels int32 [B], or probabilities of the classes [B, K].
        weight: Of each example, [B].
        first: The place of the first example in the global batch.
    """

    x: tf.Tensor
    y: tf.Tensor
    weight: tf.Tensor
    first: tf.Tensor | int = 0
