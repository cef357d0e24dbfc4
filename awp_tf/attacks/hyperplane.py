"""The shortest way onto a hyperplane inside the pixel box: FAB's projection, without a sort."""

import numpy as np
import tensorflow as tf

from awp_tf.threats import Threat, per_image

_NEWTON_STEPS = 30  # eight were enough on everything tried; each problem ends by itself


def onto_hyperplane(threat: Threat, x: tf.Tensor, normal: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """The shortest delta with <normal, delta> = -distance and x + delta in [0, 1].

    Along d = threat.ascend(normal), every coordinate moves by lambda |d_i| until it meets the box. What
    that gains, phi(lambda) = sum over i of normal_i d_i min(lambda, bound_i), rises, is concave and
    piecewise linear, so Newton's method from 0 meets the root exactly after finitely many steps. The
    result is that of Croce and Hein (ICML 2020, "Minimally distorted adversarial examples", eq. 4).

    Args:
        threat: Which norm makes it short.
        x: Images in [0, 1], [B, H, W, C].
        normal: Of the hyperplanes, [B, H, W, C].
        distance: <normal, x> - b for the hyperplane {v: <normal, v> = b}, [B].

    Returns:
        Delta, [B, H, W, C]; where the box does not reach the hyperplane, the way to its nearest corner;
        zero where normal is zero.
    """
    one = tf.ones_like(distance)
    normal = normal * per_image(tf.where(distance >= 0, one, -one))
    distance = tf.abs(distance)
    direction = threat.ascend(normal)
    size = tf.abs(direction)
    room = tf.where(direction > 0, x, 1 - x)
    bound = tf.where(size > 0, room / tf.where(size > 0, size, 1.0), 0.0)
    gain = normal * direction
    reach = tf.reduce_sum(gain * bound, axis=[1, 2, 3])
    length = tf.where(distance >= reach, tf.reduce_max(bound, axis=[1, 2, 3]), _root(gain, bound, distance))
    return -direction * tf.minimum(per_image(length), bound)


def _root(gain: tf.Tensor, bound: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """Lambda with sum(gain * min(lambda, bound)) = distance, [B]; anything where there is none."""
    rounding = 4 * np.finfo(gain.dtype.as_numpy_dtype).eps

    def step(length: tf.Tensor, gap: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = tf.reduce_sum(tf.where(bound > per_image(length), gain, 0.0), axis=[1, 2, 3])
        moves = (gap > 0) & (slope > 0)
        length = tf.where(moves, length + gap / tf.where(moves, slope, 1.0), length)
        gap = distance - tf.reduce_sum(gain * tf.minimum(per_image(length), bound), axis=[1, 2, 3])
        return length, tf.where(moves & (gap > rounding * distance), gap, 0.0)

    start = (tf.zeros_like(distance), distance)
    return tf.while_loop(lambda _, gap: tf.reduce_any(gap > 0), step, start, maximum_iterations=_NEWTON_STEPS)[0]
