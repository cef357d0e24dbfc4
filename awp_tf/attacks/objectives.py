"""What an attack maximises: images [B, H, W, C] to a value per image [B]."""

from collections.abc import Callable

import tensorflow as tf

from awp_tf.losses import cross_entropy

Objective = Callable[[tf.Tensor], tf.Tensor]
Predict = Callable[[tf.Tensor], tf.Tensor]


def untargeted(predict: Predict, labels: tf.Tensor) -> Objective:
    """Cross-entropy with the true labels [B]: away from the right class."""
    return lambda x: cross_entropy(predict(x), labels)


def targeted(predict: Predict, targets: tf.Tensor) -> Objective:
    """Minus cross-entropy with chosen wrong classes [B]: towards the target."""
    return lambda x: -cross_entropy(predict(x), targets)
