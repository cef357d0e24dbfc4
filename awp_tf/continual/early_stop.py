"""When a task is over before all its epochs, and with which weights it ends."""

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from awp_tf.continual.state import Lifetime
from awp_tf.infra.errors import UserError, at_least, positive


class Ending:
    """A task ends after all its epochs with its last weights: the null object.

    Attributes:
        kept: Variables that belong into a checkpoint.
    """

    kept: list[tf.Variable]

    def __init__(self) -> None:
        """Keeps nothing."""
        self.kept = []

    def after_epoch(self, progress: Lifetime, loss: Callable[[], float]) -> bool:
        """Looks at an epoch that is over.

        Args:
            progress: Changed: the scale of the rates, and whether the task is over.
            loss: Measures it on validation images.

        Returns:
            Whether the scale is another now.
        """
        return False

    def end(self) -> None:
        """The task is over: puts its best weights back."""


class _Best(Ending):
    """Ends with the weights of the best epoch."""

    def __init__(self, settings: "EarlyStop", network: keras.Model, first_rate: float) -> None:
        super().__init__()
        self._settings, self._network, self._first_rate = settings, network, first_rate
        self.kept = [tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in network.variables]

    def after_epoch(self, progress: Lifetime, loss: Callable[[], float]) -> bool:
        """See Ending."""
        found = loss()
        if found < progress.best_loss:
            progress.best_loss, progress.waited = found, 0
            for kept, variable in zip(self.kept, self._network.variables, strict=True):
                kept.assign(variable.value)
            return False
        progress.waited += 1
        if progress.waited < self._settings.patience:
            return False
        progress.waited, progress.scale = 0, progress.scale / self._settings.factor
        progress.stopped = progress.scale * self._first_rate < self._settings.least
        return True

    def end(self) -> None:
        """See Ending."""
        for kept, variable in zip(self.kept, self._network.variables, strict=True):
            variable.assign(kept)


@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """Divides the rates where the validation loss stands still, and ends a task with the weights of the best epoch.

    Attributes:
        patience: After so many epochs without a better loss.
        factor: What learning rate, step of the perturbation and rate of the importance are divided by.
        least: A task ends where the learning rate falls below.
    """

    patience: int = 6
    factor: float = 2.0
    least: float = 1e-5

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("EarlyStop.patience", self.patience, 1)
        positive("EarlyStop.least", self.least)
        if not self.factor > 1:
            raise UserError(f"EarlyStop.factor: expected a number > 1, received {self.factor}.")

    def ending(self, network: keras.Model, first_rate: float) -> Ending:
        """Watches a network whose tasks begin with a learning rate."""
        return _Best(self, network, first_rate)


@dataclasses.dataclass(frozen=True)
class NoEarlyStop:
    """All epochs at one rate, and the last weights."""

    def ending(self, network: keras.Model, first_rate: float) -> Ending:
        """Watches nothing."""
        return Ending()
