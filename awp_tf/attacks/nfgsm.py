"""A one-step training attack that was made not to overfit catastrophically."""

import dataclasses

import tensorflow as tf

from awp_tf import noise
from awp_tf.attacks.pgd import gradient_of
from awp_tf.box import clip_delta, require_pixels
from awp_tf.infra.errors import not_negative, positive
from awp_tf.threats import Threat
from awp_tf.types import Objective


@dataclasses.dataclass(frozen=True)
class NFGSM:
    """One step from a noisy image, and the noise stays: x + e + alpha sign(gradient at x + e), not projected.

    N-FGSM (de Jorge et al., NeurIPS 2022): with noise larger than epsilon, one step does not overfit catastrophically.
    For training: its images leave the ball, by up to relative_noise epsilon; evaluate in the ball.

    Attributes:
        threat: The ball, whose epsilon the lengths are multiples of.
        relative_noise: Of e, uniform in the ball of so many epsilon (k in the paper, 2).
        relative_step_size: Length of the step as a fraction of epsilon (alpha in the paper, 1).

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.attacks import NFGSM
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.threats import Linf
        >>> brighter = lambda x: tf.reduce_sum(x, axis=[1, 2, 3])
        >>> x_adv = NFGSM(Linf(0.1), relative_noise=0.0)(brighter, tf.fill([1, 1, 2, 1], 0.5), make_seed(0))
        >>> print(x_adv.numpy().ravel().round(3))
        [0.6 0.6]
    """

    threat: Threat
    relative_noise: float = 2.0
    relative_step_size: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative("NFGSM.relative_noise", self.relative_noise)
        positive("NFGSM.relative_step_size", self.relative_step_size)

    def __call__(
        self, objective: Objective, x: tf.Tensor, seed: noise.Seeded, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """See Attack, but for the ball; it begins anew whatever start is, or turns would lead further and further."""
        x = require_pixels(x)
        delta = clip_delta(self.relative_noise * self.threat.sample(x, seed), x)
        step = self.relative_step_size * self.threat.epsilon * self.threat.ascend(gradient_of(objective, x + delta))
        return tf.stop_gradient(tf.clip_by_value(x + clip_delta(delta + step, x), 0.0, 1.0))
