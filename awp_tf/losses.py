"""Per-example losses: logits [B, K] to loss [B].

Everything is computed from log-probabilities, so nothing overflows and nothing is clipped.
"""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p_y, shape [B], for labels [B] of integers."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def kl_divergence(logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """KL(p || q) of p = softmax(logits) and q = softmax(other), shape [B]; nothing is detached."""
    p = tf.nn.softmax(logits)
    return tf.reduce_sum(p * (tf.nn.log_softmax(logits) - tf.nn.log_softmax(other)), axis=-1)


def boosted_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p_y - log(1.0001 - max over k != y of p_k + 1e-12), shape [B].

    MART, Wang et al., ICLR 2020, eq. 9; the two constants are those of the authors' code.
    """
    p = tf.nn.softmax(logits)
    wrong = p - tf.one_hot(labels, tf.shape(p)[-1], on_value=2.0, dtype=p.dtype)
    rival = tf.reduce_max(wrong, axis=-1)
    return cross_entropy(logits, labels) - tf.math.log(1.0001 - rival + 1e-12)


def mart_regularizer(logits: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """KL(p || p') (1.0000001 - p_y), shape [B], of p = softmax(logits), p' = softmax(adversarial).

    MART, eq. 10, with the constants of the authors' code: misclassified clean examples count more.
    The weight is not detached.
    """
    p = tf.nn.softmax(logits)
    logarithm = tf.math.log(tf.nn.softmax(adversarial) + 1e-12)
    divergence = tf.reduce_sum(p * (tf.nn.log_softmax(logits) - logarithm), axis=-1)
    p_true = tf.gather(p, labels, axis=-1, batch_dims=1)
    return divergence * (1.0000001 - p_true)
