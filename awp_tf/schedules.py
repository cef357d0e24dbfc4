"""Whatever changes over time, as a function of the epoch.

Schedules are plain objects `schedule(epoch) -> value` on a real-valued epoch, so they scale with
the length of a run. LearningRate turns one into what a Keras optimizer takes; at_epoch sets every
scheduled field of an attack, method or perturbation, so a step never asks what time it is.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least, not_negative, one_of, positive

T = TypeVar("T")


class Schedule:
    """A value that changes over the epochs of a run."""

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """The value at a float64 epoch in 0..epochs."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
    """The same value at all times."""

    value: float

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        return tf.constant(self.value, tf.float64)


@dataclasses.dataclass(frozen=True)
class Warmup(Schedule):
    """0 before `epochs` epochs are over, `value` from then on (awp_warmup of the reference).

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.schedules import Warmup
        >>> [round(float(Warmup(0.1, epochs=2)(tf.constant(epoch, tf.float64))), 3) for epoch in (0, 1, 2)]
        [0.0, 0.0, 0.1]
    """

    value: float
    epochs: float

    def __post_init__(self) -> None:
        """Raises UserError where a setting is negative."""
        not_negative("Warmup.value", self.value)
        not_negative("Warmup.epochs", self.epochs)

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        return tf.where(epoch >= self.epochs, tf.constant(self.value, tf.float64), 0.0)


@dataclasses.dataclass(frozen=True)
class Piecewise(Schedule):
    """Starts at `initial` and is multiplied by `factor` at each of `drops`, fractions of the run.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.schedules import Piecewise
        >>> schedule = Piecewise(0.1, epochs=200)
        >>> [round(float(schedule(tf.constant(epoch, tf.float64))), 4) for epoch in (0, 100, 150)]
        [0.1, 0.01, 0.001]
    """

    initial: float
    epochs: int
    drops: Sequence[float] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        _check_run(self)
        if not isinstance(self.drops, Sequence) or not all(isinstance(drop, (int, float)) for drop in self.drops):
            raise UserError(
                f"Piecewise.drops: expected fractions of the run such as (0.5, 0.75), received {self.drops!r}."
            )

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        drops = tf.constant(self.drops, tf.float64, [len(self.drops)])
        passed = tf.reduce_sum(tf.cast(epoch / self.epochs >= drops, tf.float64))
        return self.initial * tf.constant(self.factor, tf.float64) ** passed


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """From `initial` to 0 along half a cosine (Loshchilov and Hutter, ICLR 2017, without restarts)."""

    initial: float
    epochs: int

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        _check_run(self)

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        return 0.5 * self.initial * (1 + tf.cos(math.pi * epoch / self.epochs))


@dataclasses.dataclass(frozen=True)
class Interpolated(Schedule):
    """Straight lines through (points[i], values[i]), points in fractions of the run.

    Attributes:
        initial: What the values are multiples of.
        epochs: The length of the run.
        points: Increasing, from 0 to 1.
        values: As many as points.
    """

    initial: float
    epochs: int
    points: Sequence[float] = (0.0, 1.0)
    values: Sequence[float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        _check_run(self)
        if len(self.points) != len(self.values) or list(self.points) != sorted(set(self.points)):
            raise UserError(
                f"{type(self).__name__}: expected increasing points and as many values, "
                f"received {self.points} and {self.values}."
            )

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        t = epoch / self.epochs
        value = tf.constant(self.values[0], tf.float64)
        corners = list(zip(self.points, self.values, strict=True))
        for (left, low), (right, high) in itertools.pairwise(corners):
            line = low + (high - low) * tf.clip_by_value((t - left) / (right - left), 0.0, 1.0)
            value = tf.where(t >= left, line, value)
        return self.initial * value


@dataclasses.dataclass(frozen=True)
class Cyclic(Interpolated):
    """Up to `initial` at 40 % of the run, then down to 0."""

    points: Sequence[float] = (0.0, 0.4, 1.0)
    values: Sequence[float] = (0.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """Constant for a third, to a tenth at two thirds, to a hundredth at the end; thirds in whole epochs."""

    initial: float
    epochs: int

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        positive("Linear.initial", self.initial)
        at_least("Linear.epochs", self.epochs, 3)

    def __call__(self, epoch: tf.Tensor) -> tf.Tensor:
        """See Schedule."""
        corners = (0, self.epochs // 3, self.epochs * 2 // 3, self.epochs)
        points = [corner / self.epochs for corner in corners]
        return Interpolated(self.initial, self.epochs, points, (1.0, 1.0, 0.1, 0.01))(epoch)


@keras.saving.register_keras_serializable(package="awp_tf")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of epochs as a learning rate of 0-based steps.

    The reference codes look at the clock in two ways. AT asks before each step where that step will
    end, (step + 1) / steps_per_epoch, so a drop at epoch 100 comes one step early; TRADES and MART
    count epochs from 1 and keep the rate for a whole epoch.
    """

    def __init__(self, schedule: Schedule, steps_per_epoch: int, whole_epochs: bool = False) -> None:
        """Binds the schedule to a number of steps per epoch.

        Args:
            schedule: The rate as a function of the epoch.
            steps_per_epoch: How many steps an epoch has.
            whole_epochs: Change only between epochs (TRADES, MART), not within (AT).
        """
        at_least("LearningRate.steps_per_epoch", steps_per_epoch, 1)
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.whole_epochs = whole_epochs
        self._dtype = keras.config.floatx()

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at a 0-based step, in the float type that Keras had when this was made."""
        step = tf.cast(step, tf.int64)
        if self.whole_epochs:
            epoch = tf.cast(step // self.steps_per_epoch + 1, tf.float64)
        else:
            epoch = tf.cast(step + 1, tf.float64) / self.steps_per_epoch
        return tf.cast(self.schedule(epoch), self._dtype)

    def get_config(self) -> dict[str, Any]:
        """What from_config takes: the schedule by its name and settings."""
        schedule = {"class_name": type(self.schedule).__name__, **dataclasses.asdict(self.schedule)}  # type: ignore[call-overload]
        return {"schedule": schedule, "steps_per_epoch": self.steps_per_epoch, "whole_epochs": self.whole_epochs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LearningRate":
        """The inverse of get_config, for the schedules of this module.

        Raises:
            UserError: The schedule is another's.
        """
        settings = dict(config["schedule"])
        kinds = {kind.__name__: kind for kind in (Constant, Warmup, Piecewise, Cosine, Interpolated, Cyclic, Linear)}
        name = settings.pop("class_name")
        one_of("LearningRate.schedule", name, kinds)
        return cls(kinds[name](**settings), config["steps_per_epoch"], config["whole_epochs"])


def at_epoch(part: T, epoch: tf.Tensor, dtype: tf.DType = tf.float32) -> T:
    """A copy of a dataclass with every schedule in it, at any depth and in lists too, replaced by its value now.

    Args:
        part: An attack, method or perturbation; returned as it is if nothing in it is scheduled.
        epoch: The time, a float64 scalar.
        dtype: The type of the values.
    """
    if isinstance(part, Schedule):
        return tf.cast(part(epoch), dtype)
    if isinstance(part, (tuple, list)):
        now = [at_epoch(each, epoch, dtype) for each in part]
        return type(part)(now) if any(a is not b for a, b in zip(now, part, strict=True)) else part
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    old = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    new = {name: at_epoch(value, epoch, dtype) for name, value in old.items()}
    changed = {name: value for name, value in new.items() if value is not old[name]}
    return dataclasses.replace(part, **changed) if changed else part


def _check_run(schedule: Any) -> None:
    positive(f"{type(schedule).__name__}.initial", schedule.initial)
    positive(f"{type(schedule).__name__}.epochs", schedule.epochs)
