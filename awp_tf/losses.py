"""Per-example losses: logits [B, K] to loss [B].

Labels are integers [B]; those that training minimises take probabilities of the classes [B, K], too (smoothed or
mixed labels, a teacher's answers). Everything is computed from log-probabilities, so nothing overflows and nothing is
clipped.
"""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p_y, shape [B]; for probabilities [B, K] as labels their mean, - sum over k of y_k log p_k.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.losses import cross_entropy
        >>> print(cross_entropy(tf.zeros([1, 10]), tf.constant([3])).numpy().round(3))  # log 10
        [2.303]
    """
    if _are_classes(labels):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def classes_of(labels: tf.Tensor) -> tf.Tensor:
    """Integers [B]: the labels, or the likeliest classes of probabilities [B, K]."""
    return labels if _are_classes(labels) else tf.argmax(labels, -1, output_type=tf.int32)


def kl_divergence(logits: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """KL(p || q) of p = softmax(logits) and q = softmax(other), shape [B]; nothing is detached."""
    p = tf.nn.softmax(logits)
    return tf.reduce_sum(p * (tf.nn.log_softmax(logits) - tf.nn.log_softmax(other)), axis=-1)


def boosted_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """-log p_y - log(1.0001 - max over k != y of p_k + 1e-12), shape [B].

    MART, Wang et al., ICLR 2020, eq. 9; the two constants are those of the authors' code. For probabilities as
    labels, k runs over all classes but the likeliest.
    """
    p = tf.nn.softmax(logits)
    wrong = p - tf.one_hot(classes_of(labels), tf.shape(p)[-1], on_value=2.0, dtype=p.dtype)
    rival = tf.reduce_max(wrong, axis=-1)
    return cross_entropy(logits, labels) - tf.math.log(1.0001 - rival + 1e-12)


def mart_regularizer(logits: tf.Tensor, adversarial: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """KL(p || p') (1.0000001 - p_y), shape [B], of p = softmax(logits), p' = softmax(adversarial).

    MART, eq. 10, with the constants of the authors' code: misclassified clean examples count more.
    The weight is not detached. For probabilities as labels, p_y is sum over k of y_k p_k.
    """
    p = tf.nn.softmax(logits)
    logarithm = tf.math.log(tf.nn.softmax(adversarial) + 1e-12)
    divergence = tf.reduce_sum(p * (tf.nn.log_softmax(logits) - logarithm), axis=-1)
    p_true = _at(p, labels) if _are_classes(labels) else tf.reduce_sum(tf.cast(labels, p.dtype) * p, axis=-1)
    return divergence * (1.0000001 - p_true)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Max over k != y of z_k, minus z_y, shape [B]: above 0 where the image is misclassified.

    Carlini and Wagner, S&P 2017, without its confidence.
    """
    is_label = tf.one_hot(labels, tf.shape(logits)[-1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.where(is_label, tf.constant(logits.dtype.min, logits.dtype), logits)
    return _largest(others, 1)[:, 0] - _at(logits, labels)


def targeted_margin(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """z_t - z_y, shape [B]."""
    return _at(logits, targets) - _at(logits, labels)


def dlr(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Difference of logits ratio, shape [B], for at least 3 classes; does not change with the logits' scale.

    (max over k != y of z_k - z_y) / (z_(1) - z_(3) + 1e-12), z_(i) the i-th largest.
    Croce and Hein, ICML 2020, eq. 6.
    """
    largest = _largest(logits, 3)
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + 1e-12)


def targeted_dlr(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12), shape [B], for at least 4 classes.

    Croce and Hein, ICML 2020, eq. 7.
    """
    largest = _largest(logits, 4)
    scale = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + 1e-12
    return targeted_margin(logits, labels, targets) / scale


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Where the largest logit is the label's, bool [B], for labels [B]."""
    return tf.argmax(logits, -1, output_type=tf.int32) == tf.cast(labels, tf.int32)


def misclassified(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Where the largest logit is not the label's, bool [B]; logits that are not finite do not count as fooled."""
    return ~correct(logits, labels) & tf.reduce_all(tf.math.is_finite(logits), axis=-1)


def _are_classes(labels: tf.Tensor) -> bool:
    return bool(tf.as_dtype(labels.dtype).is_integer)


def _at(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.gather(logits, labels, axis=-1, batch_dims=1)


def _largest(logits: tf.Tensor, count: int) -> tf.Tensor:
    """The largest logits in falling order; of equal ones the last class, whose gradient the official code takes."""
    return tf.math.top_k(tf.reverse(logits, [-1]), count).values
