"""A perturbation of some weights only, chosen by the paths of their variables."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import UserError
from awp_tf.perturbations.base import Loss, Perturbation, Points
from awp_tf.types import Gradient, Weights

Choice = str | Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class Where(Perturbation):
    """Another perturbation, to which only chosen tensors are shown; the others stay where they are.

    Attributes:
        perturbation: What moves those that are chosen; its own rule of which move (AWP's rank) counts no more.
        where: A regular expression that is searched in the paths, or a function of a path.
        paths: Of all weights, in their order, such as "dense/kernel".

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import AWP, Where
        >>> weights = [tf.constant([[3.0, 4.0]]), tf.constant([5.0])]
        >>> only_bias = Where(AWP(gamma=0.1), "bias", ["dense/kernel", "dense/bias"])
        >>> (nearby,) = only_bias(weights, lambda at: [tf.ones_like(w) for w in at], make_seed(0))
        >>> print(*(w.numpy().ravel() for w in nearby))
        [3. 4.] [5.5]
    """

    perturbation: Perturbation
    where: Choice
    paths: Sequence[str]

    def __post_init__(self) -> None:
        """Raises UserError where the regular expression is none, or nothing is chosen."""
        if not self._chosen:
            raise UserError(
                f"where: expected the path of at least one weight to match, received {self.where!r}; the paths are "
                f"{', '.join(self.paths) or 'none: nothing is trainable'}."
            )

    @property
    def bn_update(self) -> str:  # type: ignore[override]
        """See Perturbation."""
        return self.perturbation.bn_update

    @property
    def weight_decay_at(self) -> str:  # type: ignore[override]
        """See Perturbation."""
        return self.perturbation.weight_decay_at

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation."""

        def of_chosen(at: Weights) -> Weights:
            return self._some(gradient(self._among(weights, at)))

        begin = None if start is None else [self._some(point) for point in start]
        points = self._everywhere(self._some(weights), of_chosen, seed, begin)
        return [self._among(weights, point) for point in points]

    def loss(self, loss: Loss, weights: Weights, seed: noise.Seed, begun: tf.Tensor) -> tf.Tensor:
        """See Perturbation."""
        return self._everywhere.loss(
            lambda chosen: loss(self._among(weights, chosen)), self._some(weights), seed, begun
        )

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return self.perturbation.is_idle

    @property
    def needs_second_derivatives(self) -> bool:
        """See Perturbation."""
        return self.perturbation.needs_second_derivatives

    @property
    def _everywhere(self) -> Perturbation:
        return self.perturbation.everywhere()

    @functools.cached_property
    def _chosen(self) -> list[int]:
        chooses = _predicate(self.where)
        return [i for i, path in enumerate(self.paths) if chooses(path)]

    def _some(self, weights: Weights) -> Weights:
        return [weights[i] for i in self._chosen]

    def _among(self, weights: Weights, chosen: Weights) -> Weights:
        place = dict(zip(self._chosen, chosen, strict=True))
        return [place.get(i, w) for i, w in enumerate(weights)]


def _predicate(where: Choice) -> Callable[[str], object]:
    if callable(where):
        return where
    try:
        return re.compile(where).search
    except (re.error, TypeError):
        raise UserError(
            f"where: expected a regular expression or a function of a variable's path, received {where!r}."
        ) from None
