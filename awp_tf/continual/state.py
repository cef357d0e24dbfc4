"""Where a run of continual learning stands."""

import dataclasses
import math
from typing import Any

from awp_tf.infra.checkpoints import Progress


@dataclasses.dataclass
class Lifetime(Progress):
    """Goes into a checkpoint beside network, optimizer, memory, bases and importance.

    Attributes:
        step: Batches so far, and one more for each task that is over.
        task: How many are over.
        epoch: Epochs of the task under way.
        batch: Batches of the task under way.
        scale: Of the rates, which an early stop makes smaller.
        best_loss: Of its epochs, on validation images.
        waited: Epochs since the best one, or since the rate changed.
        stopped: Whether its epochs are over before their number.
        losses: Of the updates of the unfinished epoch: their sum, and how many.
        seconds: That training has taken in this task.
        images: That it has used.
        history: One line an epoch.
        tasks: What was measured after each task.
    """

    task: int = 0
    epoch: int = 0
    batch: int = 0
    scale: float = 1.0
    best_loss: float = math.inf
    waited: int = 0
    stopped: bool = False
    losses: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])
    seconds: float = 0.0
    images: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    tasks: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def begin_next(self, measured: dict[str, Any]) -> None:
        """A task is over."""
        self.tasks.append(measured)
        self.task, self.step = self.task + 1, self.step + 1
        self.epoch = self.batch = self.waited = self.images = 0
        self.scale, self.best_loss, self.stopped, self.seconds = 1.0, math.inf, False, 0.0
        self.losses = [0.0, 0.0]
