"""Where a run of `fit` stands, so that weights are perturbed from some share of it on and schedules go by epochs."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError


class Clock:
    """Epochs as a function of the optimizer's updates.

    `fit` sets it at the beginning of every epoch, so that it is right in a resumed run, and in one of several runs.
    """

    def __init__(self, start: float) -> None:
        """Create it inside strategy.scope(); start as in `perturbed`.

        Raises:
            UserError: start is neither a share nor a step.
        """
        whole = isinstance(start, numbers.Integral) and not isinstance(start, bool) and start >= 0
        share = isinstance(start, numbers.Real) and not isinstance(start, numbers.Integral) and 0 <= start < 1
        if not whole and not share:
            raise UserError(
                "start: expected a share of the run, a float in [0, 1), that is over before weights move, or a step, "
                f"an int; received {start!r}."
            )
        self.start = int(start) if whole else float(start)
        self.needs_run = share and start > 0
        # Epoch and updates at the beginning of this epoch, updates an epoch, epochs of the run.
        self._state = tf.Variable([0.0, 0.0, float("inf"), float("nan")], trainable=False, dtype=tf.float64)

    def set(self, epoch: int, updates: int, updates_per_epoch: float, epochs: int) -> None:
        """To be called at the beginning of an epoch; updates_per_epoch is infinite where it is not known."""
        self._state.assign([epoch, updates, updates_per_epoch, epochs])

    def epoch(self, step: tf.Tensor) -> tf.Tensor:
        """How many epochs are over at an update, float64; whole ones where their length is not known."""
        begin, before, length, _ = tf.unstack(self._state)
        return begin + (tf.cast(step, tf.float64) - before) / length

    def begun(self, step: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Whether weights are perturbed by now, a boolean."""
        if self.needs_run:
            return epoch / self._state[3] >= self.start  # not epoch >= the product: 0.07 * 100 is not 7
        return tf.cast(step, tf.float64) >= self.start


class SetClock(keras.callbacks.Callback):
    """Sets the clock of a PerturbedModel, and raises where an epoch's loss is not finite."""

    def __init__(self, clock: Clock) -> None:
        """Wraps clock."""
        super().__init__()
        self._clock = clock

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """See keras.callbacks.Callback."""
        optimizer, steps = self.model.optimizer, self.params.get("steps")
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        length = steps / (inner.gradient_accumulation_steps or 1) if steps else float("inf")
        with self.model.distribute_strategy.scope():
            self._clock.set(epoch, int(optimizer.iterations.numpy()), length, self.params["epochs"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """See keras.callbacks.Callback; the steps themselves raise sooner, but for XLA and float16."""
        require_finite((logs or {}).get("loss", 0.0))


def require_finite(loss: Any) -> None:
    """Raises UserError where a loss is NaN or infinite."""
    if not tf.math.is_finite(loss):
        raise UserError(f"{NOT_FINITE} {float(loss)} {NOT_FINITE_ADVICE}")


NOT_FINITE = "loss: expected a finite number, received"
NOT_FINITE_ADVICE = "(look for NaN in inputs, targets and weights, or lower the learning rate)."
