"""FAB (Croce and Hein, ICML 2020): the shortest perturbation, by steps onto linearised decision boundaries."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks.search import Examples, climb, pick
from awp_tf.infra.errors import at_least, not_negative
from awp_tf.losses import misclassified, targeted_margin
from awp_tf.noise import ImageSeeds
from awp_tf.threats import Threat, per_image
from awp_tf.types import Predict

_OVERSHOOT = 1.05  # eta: how far beyond the boundary a step goes
_BACK = 0.9  # beta: how much of the perturbation is kept once the image is misclassified
_LARGEST_PULL = 0.1  # alpha_max: the largest weight of the step from the clean image
_NEWTON_STEPS = 30  # eight were enough on everything tried; each projection ends by itself
_FAR = 1e10  # the distance of an image for which nothing was found


class FABState(NamedTuple):
    """What FAB remembers of each image; see Search for fooled and adversarial.

    Attributes:
        x: The point.
        distance: Of the nearest misclassified image so far, which is `adversarial`.
    """

    x: tf.Tensor
    distance: tf.Tensor
    fooled: tf.Tensor
    adversarial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class FAB:
    """Minimises the norm (Croce and Hein, ICML 2020); epsilon only decides whether what was found counts.

    For images that are classified correctly, as Croce and Hein's code; a step onto the boundary of one
    target class, or (targets = 0) of the class whose boundary is nearest at the point.

    Attributes:
        threat: The norm, and the epsilon that counts.
        iterations: Steps of a run.
        restarts: Runs; all but the first start at a random point at distance epsilon / 2.
        targets: How many target classes; 0 considers all classes in each step.
    """

    threat: Threat
    iterations: int = 100
    restarts: int = 1
    targets: int = 9
    randomised = False

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("FAB.iterations", self.iterations, 1)
        at_least("FAB.restarts", self.restarts, 1)
        not_negative("FAB.targets", self.targets)

    @property
    def steps(self) -> int:
        """One for each iteration."""
        return self.iterations

    def begin(self, examples: Examples, seeds: ImageSeeds, restart: tf.Tensor) -> FABState:
        """See Search."""
        away = tf.clip_by_value(examples.x + self.threat.edge(examples.x, seeds) / 2, 0.0, 1.0)
        far = tf.zeros_like(examples.x[:, 0, 0, 0]) + _FAR
        return FABState(tf.where(restart > 0, away, examples.x), far, tf.zeros_like(far, tf.bool), examples.x)

    def step(self, predict: Predict, examples: Examples, state: FABState, i: tf.Tensor, seeds: ImageSeeds) -> FABState:
        """See Search: one step towards the boundary, and back towards the clean image once it is crossed."""
        x = self._towards_boundary(examples.x, state.x, *self._boundary(predict, examples, state.x))
        wrong = misclassified(predict(x), examples.labels)
        distance = self.threat.norm(x - examples.x)
        nearer = wrong & (distance < state.distance)
        nearest = tf.where(nearer, distance, state.distance)
        return FABState(
            x=pick(wrong, examples.x + _BACK * (x - examples.x), x),
            distance=nearest,
            fooled=nearest <= self.threat.epsilon,
            adversarial=pick(nearer, x, state.adversarial),
        )

    def _towards_boundary(self, clean: tf.Tensor, x: tf.Tensor, value: tf.Tensor, normal: tf.Tensor) -> tf.Tensor:
        """The two projections, from x and from the clean image, mixed by their lengths."""
        # From the linear function's values, not from <normal, x> - b, which cancels in float32.
        value_clean = value + tf.reduce_sum(normal * (clean - x), axis=[1, 2, 3])
        stacked = [tf.concat(pair, 0) for pair in ((x, clean), (normal, normal), (value, value_clean))]
        moves = onto_hyperplane(self.threat, *stacked)
        near, far = tf.split(tf.maximum(self.threat.norm(moves), 1e-8), 2)
        move, move_clean = tf.split(moves, 2)
        pull = per_image(tf.minimum(near / (near + far), _LARGEST_PULL))
        # x <- (1 - alpha) (x + eta delta) + alpha (clean + eta delta_clean), alpha at most alpha_max.
        mixed = (x + _OVERSHOOT * move) * (1 - pull) + (clean + _OVERSHOOT * move_clean) * pull
        return tf.clip_by_value(mixed, 0.0, 1.0)

    def _boundary(self, predict: Predict, examples: Examples, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z_s - z_y at x [B] and its gradient [B, H, W, C], for the target s or the nearest boundary."""
        if self.targets:
            return _difference(predict, examples, x, examples.targets)
        classes = predict(x).shape[-1]
        nothing = tf.zeros_like(x[:, 0, 0, 0])

        def consider(s: tf.Tensor, least: tf.Tensor, *best: tf.Tensor) -> tuple[tf.Tensor, ...]:
            target = tf.zeros_like(examples.labels) + s
            value, normal = _difference(predict, examples, x, target)
            dual = tf.reduce_sum(normal * self.threat.ascend(normal), axis=[1, 2, 3])
            away = tf.where(target == examples.labels, nothing + _FAR, tf.abs(value) / (dual + 1e-12))
            nearer = away < least
            return s + 1, tf.minimum(away, least), tf.where(nearer, value, best[0]), pick(nearer, normal, best[1])

        first = (tf.constant(0), nothing + x.dtype.max, nothing, tf.zeros_like(x))
        _, _, value, normal = tf.while_loop(lambda s, *_: s < classes, consider, first)
        return value, normal


def _difference(predict: Predict, examples: Examples, x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    def objective(z: tf.Tensor) -> tuple[tf.Tensor, None]:
        return targeted_margin(predict(z), examples.labels, target), None

    return climb(objective, x)[1:]


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
    ones = tf.ones_like(distance)
    normal = normal * per_image(tf.where(distance >= 0, ones, -ones))
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
