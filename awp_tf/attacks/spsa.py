"""SPSA (Uesato et al., ICML 2018): gradient ascent with a gradient that is estimated from logits alone."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from awp_tf import noise
from awp_tf.attacks.search import Examples, pick
from awp_tf.box import clip_delta
from awp_tf.infra.errors import UserError, at_least, positive
from awp_tf.losses import margin, misclassified
from awp_tf.threats import Threat
from awp_tf.types import Predict

_DECAYS, _TINY = (0.9, 0.999), 1e-8  # of Adam
_PAIRS = 8  # classified at a time, so that memory does not grow with samples


class SPSAState(NamedTuple):
    """Adam's state for each image's perturbation delta; see Search for fooled and adversarial."""

    delta: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor
    fooled: tf.Tensor
    adversarial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class SPSA:
    """Adam on the margin, with random sign directions; defaults are those of the AWP paper's table.

    Attributes:
        threat: The ball.
        iterations: Steps of Adam.
        samples: Images classified for each gradient: half as many directions, there and back.
        learning_rate: Of Adam, in [0, 1] pixels.
        reach: How far along a direction, in [0, 1] pixels (delta in the paper).
        restarts: Runs.
    """

    threat: Threat
    iterations: int = 100
    samples: int = 256
    learning_rate: float = 0.01
    reach: float = 0.001
    restarts: int = 1
    targets = 0
    randomised = False

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("SPSA.iterations", self.iterations, 1)
        at_least("SPSA.restarts", self.restarts, 1)
        positive("SPSA.learning_rate", self.learning_rate)
        positive("SPSA.reach", self.reach)
        at_least("SPSA.samples", self.samples, 2 * _PAIRS)
        if self.samples % (2 * _PAIRS):
            raise UserError(f"SPSA.samples: expected a multiple of {2 * _PAIRS}, received {self.samples}.")

    @property
    def steps(self) -> int:
        """One for each iteration."""
        return self.iterations

    def begin(self, examples: Examples, seeds: noise.ImageSeeds, restart: tf.Tensor) -> SPSAState:
        """See Search: at a random point of the ball."""
        delta = clip_delta(self.threat.sample(examples.x, seeds.fold(0)), examples.x)
        nothing = tf.zeros_like(delta)
        return SPSAState(delta, nothing, nothing, tf.zeros_like(examples.labels, tf.bool), examples.x + delta)

    def step(
        self, predict: Predict, examples: Examples, state: SPSAState, i: tf.Tensor, seeds: noise.ImageSeeds
    ) -> SPSAState:
        """See Search: one step of Adam, then one look at where it led."""
        x = examples.x
        gradient = self._estimate(predict, examples, x + state.delta, seeds.fold(1).fold(i))
        mean = _DECAYS[0] * state.mean + (1 - _DECAYS[0]) * gradient
        square = _DECAYS[1] * state.square + (1 - _DECAYS[1]) * tf.square(gradient)
        age = tf.cast(i + 1, x.dtype)
        unbiased = mean / (1 - tf.pow(tf.constant(_DECAYS[0], x.dtype), age))
        spread = tf.sqrt(square / (1 - tf.pow(tf.constant(_DECAYS[1], x.dtype), age)))
        delta = clip_delta(self.threat.project(state.delta + self.learning_rate * unbiased / (spread + _TINY)), x)
        moved = tf.clip_by_value(x + delta, 0.0, 1.0)
        wrong = misclassified(predict(moved), examples.labels)
        return SPSAState(delta, mean, square, state.fooled | wrong, pick(wrong, moved, state.adversarial))

    def _estimate(self, predict: Predict, examples: Examples, x: tf.Tensor, seeds: noise.ImageSeeds) -> tf.Tensor:
        """The mean over directions v of (f(x + reach v) - f(x - reach v)) / (2 reach) v, [B, H, W, C]."""
        groups = self.samples // (2 * _PAIRS)
        labels = tf.repeat(examples.labels, 2 * _PAIRS)
        shape = tf.shape(x)

        def add(group: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            draws = noise.uniform(seeds.fold(group), tf.tile(x[:, tf.newaxis], [1, _PAIRS, 1, 1, 1]))
            ahead = tf.sign(draws - 0.5)
            probes = x[:, tf.newaxis] + self.reach * tf.concat([ahead, -ahead], 1)
            value = tf.reshape(
                margin(predict(tf.reshape(probes, tf.concat([[-1], shape[1:]], 0))), labels), [-1, 2, _PAIRS]
            )
            slope = (value[:, 0] - value[:, 1]) / (2 * self.reach)
            return group + 1, total + tf.einsum("bp,bphwc->bhwc", slope, ahead)

        total = tf.while_loop(lambda group, _: group < groups, add, (tf.constant(0), tf.zeros_like(x)))[1]
        return total / (groups * _PAIRS)
