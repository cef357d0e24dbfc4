"""Square Attack (Andriushchenko et al., ECCV 2020): random square windows, no gradient is ever taken."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from awp_tf import noise
from awp_tf.attacks.search import Examples, pick
from awp_tf.attacks.windows import Stripes, Tiles
from awp_tf.infra.errors import at_least
from awp_tf.losses import margin, misclassified
from awp_tf.threats import L2, Threat
from awp_tf.types import Predict


class SquareState(NamedTuple):
    """What the attack remembers of each image; see Search for fooled and adversarial.

    Attributes:
        noise: All uniform numbers of the run, [B, queries + 1, numbers a query].
        best: The image with the lowest margin so far.
        margin: Of the true class at best, z_y - max z_k; the search ends at 0 or below.
        queries: How many images were classified.
    """

    noise: tf.Tensor
    best: tf.Tensor
    margin: tf.Tensor
    queries: tf.Tensor
    fooled: tf.Tensor
    adversarial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Square:
    """Changes one window at a time and keeps what lowers the margin (Andriushchenko et al., ECCV 2020).

    As the official code, but each image has windows of its own where there a whole batch shares them.

    Attributes:
        threat: Linf or L2.
        queries: Of one run, for each image; one more is spent on the start.
        restarts: Runs.
        first_size: Part of the image that the first windows cover.
    """

    threat: Threat
    queries: int = 5000
    restarts: int = 1
    first_size: float = 0.8
    targets = 0
    randomised = False

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("Square.queries", self.queries, 1)
        at_least("Square.restarts", self.restarts, 1)

    @property
    def steps(self) -> int:
        """The start, and one for each query."""
        return self.queries + 1

    def begin(self, examples: Examples, seeds: noise.ImageSeeds, restart: tf.Tensor) -> SquareState:
        """See Search: draws the start and all later noise."""
        numbers = self._geometry(examples.x).numbers
        like = tf.zeros([tf.shape(examples.x)[0], self.steps, numbers], examples.x.dtype)
        start = self._geometry(examples.x).start(seeds.fold(0))
        return self.begin_at(examples, start)._replace(noise=noise.uniform(seeds.fold(1), like))

    def begin_at(self, examples: Examples, start: tf.Tensor) -> SquareState:
        """The state at perturbed images [B, H, W, C], before they are classified; without noise."""
        zeros = tf.zeros_like(examples.x[:, 0, 0, 0])
        noise = tf.zeros([tf.shape(start)[0], self.steps, self._geometry(examples.x).numbers], start.dtype)
        best = tf.clip_by_value(start, 0.0, 1.0)
        return SquareState(noise, best, zeros + start.dtype.max, zeros, tf.zeros_like(zeros, tf.bool), best)

    def step(
        self, predict: Predict, examples: Examples, state: SquareState, i: tf.Tensor, seeds: noise.ImageSeeds
    ) -> SquareState:
        """See Search: the start is query 0."""
        geometry = self._geometry(examples.x)
        proposed = geometry.propose(state.best, state.noise[:, i], tf.maximum(i - 1, 0))
        x = tf.where(i == 0, state.best, proposed)
        logits = predict(x)
        left = -margin(logits, examples.labels)
        active = state.margin > 0
        better = active & ((left < state.margin) | (left <= 0))
        best = pick(better, x, state.best)
        return state._replace(
            best=best,
            margin=tf.where(better, left, state.margin),
            queries=state.queries + tf.cast(active, x.dtype),
            fooled=tf.where(better, misclassified(logits, examples.labels), state.fooled),
            adversarial=best,
        )

    def _geometry(self, clean: tf.Tensor) -> Stripes:
        kind = Tiles if isinstance(self.threat, L2) else Stripes
        return kind(clean, self.threat.epsilon, self.queries, self.first_size)
