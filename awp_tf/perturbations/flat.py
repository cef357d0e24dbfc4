"""Flattening sharpness: a chain of plain gradient steps in the weights, at each of which the loss counts."""

import dataclasses
from typing import ClassVar

from awp_tf import noise
from awp_tf.infra.errors import at_least, not_negative
from awp_tf.perturbations.base import Perturbation, Points
from awp_tf.types import Gradient, Weights


@dataclasses.dataclass(frozen=True)
class FS(Perturbation):
    """Flattening sharpness (Deng et al., NeurIPS 2021, FS-DGPM): w_k <- w_{k-1} + step_size g(w_{k-1}), k = 1..steps.

    The gradient is taken as it is, not at length one as in SAM and AWP, and all tensors move. What is minimised is the
    mean of the losses at w_1..w_steps. In continual learning (`awp_tf.continual`) each step has images of its own, and
    the gradient is projected onto what earlier tasks need, and clipped.

    Attributes:
        steps: How many (K in the paper).
        step_size: eta_1 in the paper.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import FS
        >>> first, second = FS(steps=2, step_size=0.1)([tf.constant([1.0])], lambda at: at, make_seed(0))
        >>> print(first[0].numpy().round(2), second[0].numpy().round(2))
        [1.1] [1.21]
    """

    steps: int = 2
    step_size: float = 0.05

    _sign: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least(f"{type(self).__name__}.steps", self.steps, 1)
        not_negative(f"{type(self).__name__}.step_size", self.step_size)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.step_size) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation."""
        at, points = weights if start is None else start[-1], []
        for _ in range(self.steps):
            at = [w + self._sign * self.step_size * g for w, g in zip(at, gradient(at), strict=True)]
            points.append(at)
        return points


@dataclasses.dataclass(frozen=True)
class LookAhead(FS):
    """The same chain downhill, as in La-MAML (Gupta et al., NeurIPS 2020): w_k <- w_{k-1} - step_size g(w_{k-1})."""

    _sign: ClassVar[float] = -1.0
