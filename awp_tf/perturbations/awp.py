"""Adversarial weight perturbation, and its control in random directions; both move kernels only (rank >= 2)."""

import dataclasses

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import at_least, not_negative
from awp_tf.perturbations.base import Perturbation, Points
from awp_tf.types import Gradient, Weights


@dataclasses.dataclass(frozen=True)
class AWP(Perturbation):
    """Adversarial weight perturbation (Wu et al., NeurIPS 2020, eqs. 8 and 10).

    v_l <- v_l + (gamma / steps) ||w_l|| g_l / ||g_l||, then ||v_l|| <= gamma ||w_l||, layer by layer.

    Attributes:
        gamma: Largest ||v_l|| / ||w_l||; 0.01 for AT and 0.005 for TRADES in the authors' code.
        steps: Gradient steps (K2 in the paper).

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import AWP
        >>> weights = [tf.constant([[3.0, 4.0]])]  # of length 5, so v has length 0.05
        >>> (nearby,) = AWP(gamma=0.01)(weights, lambda at: [tf.constant([[0.0, 1.0]])], make_seed(0))
        >>> print(nearby[0].numpy().round(3))
        [[3.   4.05]]
    """

    gamma: float = 0.01
    steps: int = 1

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative("AWP.gamma", self.gamma)
        at_least("AWP.steps", self.steps, 1)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.gamma) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation."""
        vs = [n - w for n, w in zip(weights if start is None else start[0], weights, strict=True)]
        for _ in range(self.steps):
            gradients = gradient(_add(weights, vs))
            vs = [self._ascend(*wvg) for wvg in zip(weights, vs, gradients, strict=True)]
        return [_add(weights, vs)]

    def _ascend(self, weight: tf.Tensor, v: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
        if weight.shape.rank < 2:
            return v
        radius = self.gamma * tf.norm(weight)
        moved = v + radius / self.steps * _unit(gradient)  # eq. 10
        # Back into the ball of eq. 8, which the authors' code for one step does not need.
        return moved * tf.minimum(radius / (tf.norm(moved) + 1e-20), 1.0)


@dataclasses.dataclass(frozen=True)
class RandomPerturbation(Perturbation):
    """The paper's control (RWP): the length of AWP in a random direction, fresh at every step.

    Attributes:
        gamma: ||v_l|| / ||w_l||.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import RandomPerturbation
        >>> weights = [tf.constant([[3.0, 4.0]])]
        >>> (nearby,) = RandomPerturbation(gamma=0.01)(weights, None, make_seed(0))
        >>> print(tf.norm(nearby[0] - weights[0]).numpy().round(3))
        0.05
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        """Raises UserError where gamma is negative."""
        not_negative("RandomPerturbation.gamma", self.gamma)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.gamma) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation; start and gradient play no part."""
        return [[self._shift(w, seed.fold(layer)) for layer, w in enumerate(weights)]]

    def _shift(self, weight: tf.Tensor, seed: noise.Seed) -> tf.Tensor:
        if weight.shape.rank < 2:
            return weight
        direction = noise.normal(seed, weight)
        return weight + self.gamma * tf.norm(weight) * _unit(direction)


def _unit(direction: tf.Tensor) -> tf.Tensor:
    """Direction at length one; zero where it has none."""
    return direction / (tf.norm(direction) + 1e-20)


def _add(weights: Weights, vs: Weights) -> Weights:
    return [w + v for w, v in zip(weights, vs, strict=True)]
