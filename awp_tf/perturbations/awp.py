"""Adversarial weight perturbation, and its control in random directions; both move kernels only (rank >= 2)."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import at_least, not_negative, one_of
from awp_tf.perturbations.base import Perturbation, Points
from awp_tf.types import Gradient, Weights

_NORMS = ("layer", "global")


@dataclasses.dataclass(frozen=True)
class AWP(Perturbation):
    """Adversarial weight perturbation (Wu et al., NeurIPS 2020, eqs. 8 and 10).

    v_l <- v_l + (gamma / steps) ||w_l|| g_l / ||g_l||, then ||v_l|| <= gamma ||w_l||, layer by layer.

    Attributes:
        gamma: Largest ||v_l|| / ||w_l||; 0.01 for AT and 0.005 for TRADES in the authors' code.
        steps: Gradient steps (K2 in the paper).
        norm: "layer", or "global": all tensors that move are taken as one.
        least_rank: Of the tensors that move: 2 is kernels and embeddings, without biases and normalisation.

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
    norm: str = "layer"
    least_rank: int = 2

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative("AWP.gamma", self.gamma)
        at_least("AWP.steps", self.steps, 1)
        one_of("AWP.norm", self.norm, _NORMS)
        at_least("AWP.least_rank", self.least_rank, 0)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.gamma) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation."""
        vs = [n - w for n, w in zip(weights if start is None else start[0], weights, strict=True)]
        for _ in range(self.steps):
            gradients = gradient(_add(weights, vs))
            for group in _groups(weights, self.norm, self.least_rank):
                moved = self._ascend(*([tensors[i] for i in group] for tensors in (weights, vs, gradients)))
                vs = [dict(zip(group, moved, strict=True)).get(i, v) for i, v in enumerate(vs)]
        return [_add(weights, vs)]

    def everywhere(self) -> "AWP":
        """See Perturbation."""
        return dataclasses.replace(self, least_rank=0)

    def _ascend(self, weights: Weights, vs: Weights, gradients: Weights) -> Weights:
        radius = self.gamma * _length(weights)
        size = _length(gradients) + 1e-20
        moved = [v + radius / self.steps * (g / size) for v, g in zip(vs, gradients, strict=True)]  # eq. 10
        # Back into the ball of eq. 8, which the authors' code for one step does not need.
        inside = tf.minimum(radius / (_length(moved) + 1e-20), 1.0)
        return [v * inside for v in moved]


@dataclasses.dataclass(frozen=True)
class RandomPerturbation(Perturbation):
    """The control of AWP's authors (RWP; Wu et al., 2020): its length in a random direction, fresh at every step.

    Attributes:
        gamma: ||v_l|| / ||w_l||.
        norm: See AWP.
        least_rank: See AWP.

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
    norm: str = "layer"
    least_rank: int = 2

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative("RandomPerturbation.gamma", self.gamma)
        one_of("RandomPerturbation.norm", self.norm, _NORMS)
        at_least("RandomPerturbation.least_rank", self.least_rank, 0)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.gamma) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation; start and gradient play no part."""
        vs = [tf.zeros_like(w) for w in weights]
        for group in _groups(weights, self.norm, self.least_rank):
            directions = [noise.normal(seed.fold(i), weights[i]) for i in group]
            size = _length(directions) + 1e-20
            radius = self.gamma * _length([weights[i] for i in group])
            for i, direction in zip(group, directions, strict=True):
                vs[i] = radius * (direction / size)
        return [_add(weights, vs)]

    def everywhere(self) -> "RandomPerturbation":
        """See Perturbation."""
        return dataclasses.replace(self, least_rank=0)


def _groups(weights: Weights, norm: str, least_rank: int) -> list[list[int]]:
    """Places of tensors that share one length, group by group; those that do not move are in none."""
    places = [i for i, w in enumerate(weights) if w.shape.rank >= least_rank]
    return [places] if norm == "global" and places else [[i] for i in places]


def _length(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Of several tensors as one vector."""
    lengths = [tf.norm(t) for t in tensors]
    return lengths[0] if len(lengths) == 1 else tf.norm(tf.stack(lengths))


def _add(weights: Weights, vs: Weights) -> Weights:
    return [w + v for w, v in zip(weights, vs, strict=True)]
