"""What the released code of randomised adversarial training optimises in place of its title: soft labels for TRADES.

Alexkael/Randomized-Adversarial-Training draws no noise on the weights in its loss and takes no derivative of a
derivative. It adds to TRADES two KL terms whose targets are made from the gradient of the last layer, class by class.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from awp_tf.infra.errors import UserError, fraction, one_of
from awp_tf.losses import cross_entropy, kl_divergence
from awp_tf.methods import TRADES
from awp_tf.types import Predict


@dataclasses.dataclass(frozen=True)
class SoftLabelTRADES(TRADES):
    """(1 - alpha) CE(f(x), y) + beta KL(p || p') + alpha first + alpha / 2 second, as released (CVPR 2023's code).

    first = (KL(R(a - a')_y || p') + KL(R(a' - a)_y || p)) / 2 with a = |s|, and second likewise with R(b' - b)_y for
    both and b = s^2; s_c is the sum over the inputs of the last layer of d CE / dW_c on clean images, s' on adversarial
    ones. R makes of a vector a row of probabilities for each class. That both rows of `second` are R(b' - b) looks like
    a slip of the released code; it is kept, since the code is what this stands for. Each replica has labels of its own
    share.

    Attributes:
        beta: Of TRADES.
        attack_in_training_mode: Of TRADES.
        alpha: How much of the loss has soft labels.
        labels: "gradient", as released; "uniform": rows of the same diagonal, uniform beside it, the control without
            which nothing can be said of the gradient.
    """

    alpha: float = 0.2
    labels: str = "gradient"

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        super().__post_init__()
        fraction("SoftLabelTRADES.alpha", self.alpha)
        one_of("SoftLabelTRADES.labels", self.labels, ("gradient", "uniform"))

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """See the class; predict has to give the inputs of the last layer, too.

        Raises:
            UserError: It does not.
        """
        adversarial, their_features = _with_features(predict, x_adv)
        clean, features = _with_features(predict, x)
        s = last_layer_sums(clean, features, y)
        other = last_layer_sums(adversarial, their_features, y)
        gaps = (tf.abs(s) - tf.abs(other), tf.abs(other) - tf.abs(s), other**2 - s**2)
        if self.labels == "uniform":
            gaps = (tf.zeros_like(s),) * 3
        of_adversarial, of_clean, of_second = (tf.stop_gradient(rows_of(_soft_rows(gap), y)) for gap in gaps)
        first = (_kl_to(of_adversarial, adversarial) + _kl_to(of_clean, clean)) / 2
        second = (_kl_to(of_second, adversarial) + _kl_to(of_second, clean)) / 2
        trades = (1 - self.alpha) * cross_entropy(clean, y) + self.beta * kl_divergence(clean, adversarial)
        return trades + self.alpha * first + 0.5 * self.alpha * second


def last_layer_sums(logits: tf.Tensor, features: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """s_c = sum over j of d (mean CE) / dW_jc = mean over images of (p_c - y_c) sum_j h_j, shape [K].

    Args:
        logits: [B, K], f(x) = h W + b.
        features: h, [B, J].
        y: Labels [B] or probabilities [B, K].
    """
    residual = tf.nn.softmax(logits) - rows_of(tf.eye(logits.shape[-1], dtype=logits.dtype), y)
    return tf.reduce_mean(residual * tf.reduce_sum(features, axis=-1, keepdims=True), axis=0)


def rows_of(matrix: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The row of each label, or their mean for probabilities: [K, K] and [B] or [B, K] to [B, K]."""
    if tf.as_dtype(y.dtype).is_integer:
        return tf.gather(matrix, y)
    return tf.cast(y, matrix.dtype) @ matrix


def _soft_rows(v: tf.Tensor) -> tf.Tensor:
    """R: [K] to [K, K]; 2 / K on the diagonal, the rest shared as v - min v, or evenly where that is zero."""
    classes = v.shape[0]
    beside = (v - tf.reduce_min(v))[None, :] * (1 - tf.eye(classes, dtype=v.dtype))
    total = tf.reduce_sum(beside, axis=-1, keepdims=True)
    even = (1 - tf.eye(classes, dtype=v.dtype)) / (classes - 1)
    share = tf.where(total > 0, beside / tf.where(total > 0, total, 1), even)
    true = 2 / classes  # 0.2 of ten classes, 0.02 of a hundred in the released code, which knows no other number
    return (1 - true) * share + true * tf.eye(classes, dtype=v.dtype)


def _kl_to(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """KL(target || softmax(logits)), [B]."""
    return tf.reduce_sum(tf.math.xlogy(target, target) - target * tf.nn.log_softmax(logits), axis=-1)


def _with_features(predict: Any, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if not hasattr(predict, "with_features"):
        raise UserError("SoftLabelTRADES: expected a network in training (RobustTrainer), received a plain function.")
    logits, features = predict.with_features(x)
    return logits, tf.cast(features, logits.dtype)
