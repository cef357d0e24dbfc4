"""The box that inputs stay in: [0, 1] for pixels, other limits or none for what else is attacked (awp_tf.perturbed)."""

import tensorflow as tf

from awp_tf.infra.errors import UserError

Limits = tuple[float, float] | None  # smallest and largest value
PIXELS: Limits = (0.0, 1.0)

_ROUNDING = 1e-3
_SAID = "images: expected pixels in [0, 1]"
_ADVICE = "(divide 0..255 by 255; epsilon is in the same unit)."
_OTHER = "(PGD.box: give it their smallest and largest value, or None)."


def require_pixels(x: tf.Tensor, limits: Limits = PIXELS) -> tf.Tensor:
    """Returns x after checking that it lies in the box; in a graph the check runs with it, under XLA there is none.

    Raises:
        UserError: They are not; a thousandth is granted to the rounding of those who resize. In a graph it is
            tf.errors.InvalidArgumentError with the same text.
    """
    if limits is None:
        return x
    low, high = limits
    slack = _ROUNDING * (high - low)
    inside = tf.reduce_all((x >= low - slack) & (x <= high + slack))
    said, advice = (_SAID, _ADVICE) if limits == PIXELS else (f"inputs: expected values in [{low:g}, {high:g}]", _OTHER)
    expected = f"{said}, received values between"
    if tf.executing_eagerly():
        if not inside:
            raise UserError(f"{expected} {float(tf.reduce_min(x)):g} and {float(tf.reduce_max(x)):g} {advice}")
        return x
    check = tf.debugging.Assert(inside, [expected, tf.reduce_min(x), "and", tf.reduce_max(x), advice])
    with tf.control_dependencies([check]):
        return tf.identity(x)


def clip_delta(delta: tf.Tensor, x: tf.Tensor, limits: Limits = PIXELS) -> tf.Tensor:
    """The delta nearest to delta such that x + delta is in the box; for x in it never longer than delta."""
    return delta if limits is None else tf.clip_by_value(delta, limits[0] - x, limits[1] - x)


def clip(x: tf.Tensor, limits: Limits = PIXELS) -> tf.Tensor:
    """The point of the box nearest to x."""
    return x if limits is None else tf.clip_by_value(x, *limits)
