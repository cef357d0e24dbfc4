"""APGD (Croce and Hein, ICML 2020): PGD with momentum that halves its own steps and returns to its best point."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks.search import LOSSES, Examples, climb, pick
from awp_tf.box import clip_delta
from awp_tf.infra.errors import at_least, one_of
from awp_tf.losses import misclassified
from awp_tf.noise import ImageSeeds
from awp_tf.threats import Threat, per_image
from awp_tf.types import Predict

_MOMENTUM = 0.75  # weight of the new step against the last one
_RHO = 0.75  # a window with fewer improving steps than this fraction halves the step


class APGDState(NamedTuple):
    """What APGD remembers of each image; see Search for fooled and adversarial.

    Attributes:
        x, x_old: The point, and the one before.
        gradient: At x.
        best, best_gradient, best_loss: Where the loss was highest.
        loss: At the last step evaluated (0 before the first, as in the official code).
        rises: Steps of this window on which the loss rose.
        step: Length of the next step.
        halved: Whether the last check halved it.
        checked_loss: best_loss at the last check.
    """

    x: tf.Tensor
    x_old: tf.Tensor
    gradient: tf.Tensor
    best: tf.Tensor
    best_gradient: tf.Tensor
    best_loss: tf.Tensor
    loss: tf.Tensor
    rises: tf.Tensor
    step: tf.Tensor
    halved: tf.Tensor
    checked_loss: tf.Tensor
    fooled: tf.Tensor
    adversarial: tf.Tensor


@dataclasses.dataclass(frozen=True)
class APGD:
    """As the code of Croce and Hein (fra31/auto-attack) has it, where that differs from their paper too.

    Attributes:
        threat: The ball.
        loss: "ce", "dlr", "margin", or for targets "targeted-dlr", "targeted-margin".
        iterations: Gradient steps of a run.
        restarts: Runs, each with a start of its own.
        targets: How many target classes; 0 for an untargeted loss.
        eot: Gradients averaged at each point, for randomised networks.
    """

    threat: Threat
    loss: str = "ce"
    iterations: int = 100
    restarts: int = 1
    targets: int = 0
    eot: int = 1

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        one_of("APGD.loss", self.loss, LOSSES)
        for name in ("iterations", "restarts", "eot"):
            at_least(f"APGD.{name}", getattr(self, name), 1)
        at_least("APGD.targets", self.targets, int(self.loss.startswith("targeted")))

    @property
    def steps(self) -> int:
        """One more than iterations: the start is evaluated too."""
        return self.iterations + 1

    @property
    def randomised(self) -> bool:
        """Whether the network is taken to be randomised."""
        return self.eot > 1

    def begin(self, examples: Examples, seeds: ImageSeeds, restart: tf.Tensor) -> APGDState:
        """See Search: at a random point on the edge of the ball."""
        return self.begin_at(examples.x + clip_delta(self.threat.edge(examples.x, seeds), examples.x))

    def begin_at(self, x: tf.Tensor) -> APGDState:
        """The state at given images [B, H, W, C] inside ball and box, before they are evaluated."""
        zeros = tf.zeros_like(x[:, 0, 0, 0])
        false = tf.zeros_like(zeros, tf.bool)
        step = zeros + tf.constant(2 * self.threat.epsilon, x.dtype)
        lowest = zeros + x.dtype.min
        nothing = tf.zeros_like(x)
        return APGDState(x, x, nothing, x, nothing, lowest, zeros, zeros, step, ~false, zeros, false, x)

    def step(
        self, predict: Predict, examples: Examples, state: APGDState, i: tf.Tensor, seeds: ImageSeeds
    ) -> APGDState:
        """See Search: moves (from step 1 on), evaluates, and at the end of a window adapts the step."""
        x = self._move(examples.x, state, i)
        logits, loss, gradient = self._evaluate(predict, examples, x)
        wrong = misclassified(logits, examples.labels)
        better = loss > state.best_loss
        best_loss = tf.where(better, loss, state.best_loss)
        state = state._replace(
            x=x,
            x_old=state.x,
            gradient=gradient,
            best=pick(better, x, state.best),
            best_gradient=pick(better, gradient, state.best_gradient),
            best_loss=best_loss,
            loss=tf.where(i == 0, state.loss, loss),
            rises=state.rises + tf.cast((i > 0) & (loss > state.loss), x.dtype),
            checked_loss=tf.where(i == 0, best_loss, state.checked_loss),
            fooled=state.fooled | wrong,
            adversarial=pick(wrong, x, state.adversarial),
        )
        window = tf.gather(_windows(self.iterations), i)
        return tf.cond(window > 0, lambda: self._end_window(state, window), lambda: state)

    def _move(self, clean: tf.Tensor, state: APGDState, i: tf.Tensor) -> tf.Tensor:
        """The next point; at step 0, without gradient and momentum, the start itself."""
        weight = tf.where(i == 1, tf.ones([], clean.dtype), _MOMENTUM)
        step = self.threat.ascend(state.gradient) * per_image(state.step)
        # Algorithm 1 of the paper: z = P(x + eta g), then x = P(x + alpha (z - x) + (1 - alpha) (x - x_old)).
        target = self._inside(clean, state.x + step)
        inertia = state.x - state.x_old
        return self._inside(clean, state.x + (target - state.x) * weight + inertia * (1 - weight))

    def _inside(self, clean: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(clean + self.threat.project(x - clean), 0.0, 1.0)

    def _evaluate(self, predict: Predict, examples: Examples, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(Logits, loss, gradient); of several passes the mean gradient, and the last one's logits and loss."""

        def objective(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = predict(z)
            return LOSSES[self.loss](logits, examples), logits

        logits, loss, gradient = climb(objective, x)
        if self.eot == 1:
            return logits, loss, gradient

        def again(k: tf.Tensor, logits: tf.Tensor, loss: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, ...]:
            logits, loss, gradient = climb(objective, x)
            return k + 1, logits, loss, total + gradient

        first = (tf.constant(1), logits, loss, gradient)
        _, logits, loss, total = tf.while_loop(lambda k, *_: k < self.eot, again, first)
        return logits, loss, total / self.eot

    def _end_window(self, state: APGDState, window: tf.Tensor) -> APGDState:
        """At the end of a window: halve the step where it no longer helps, and go back to the best point.

        The point before is kept as it was, so the next momentum leads away from the best point: as in
        the official code.
        """
        # Conditions 1 and 2 of the paper; "<=" and the loss of the window before are the official code's.
        restless = state.rises <= _RHO * tf.cast(window, state.rises.dtype)
        stuck = ~state.halved & (state.checked_loss >= state.best_loss)
        halve = restless | stuck
        return state._replace(
            x=pick(halve, state.best, state.x),
            gradient=pick(halve, state.best_gradient, state.gradient),
            rises=tf.zeros_like(state.rises),
            step=tf.where(halve, state.step / 2, state.step),
            halved=halve,
            checked_loss=state.best_loss,
        )


def _windows(iterations: int) -> np.ndarray:
    """For each step the length of the window that ends with it; 0 where none does."""
    # w_j = p_j N with p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), in whole steps as the official code.
    window, shortest, shrink = (max(int(part * iterations), 1) for part in (0.22, 0.06, 0.03))
    ends = np.zeros(iterations + 1, np.int32)
    end = window
    while end <= iterations:
        ends[end] = window
        window = max(window - shrink, shortest)
        end += window
    return ends
