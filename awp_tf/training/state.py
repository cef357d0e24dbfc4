"""Where a run of training stands."""

import dataclasses
from collections.abc import Mapping

from awp_tf.infra.checkpoints import Progress
from awp_tf.infra.progress import duration


@dataclasses.dataclass
class TrainingState(Progress):
    """Where a run stands.

    Attributes:
        epoch: Epochs finished, their validation included.
        best: Best validation accuracy so far, of the kind that the run chooses by.
        best_clean: Clean validation accuracy of that epoch, which decides between equals.
        best_epoch: The epoch (from 1) that reached it.
        sums: Sums over the steps of the unfinished epoch, by name.
        stopped: Whether early stopping ended training.
        history: What was measured after each epoch.
    """

    epoch: int = 0
    best: float = -1.0
    best_clean: float = -1.0
    best_epoch: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def epoch_line(epoch: int, epochs: int, values: Mapping[str, float], *, remaining: float, best: bool) -> str:
    """One epoch in one line; accuracies, where they were measured, are clean / robust."""
    measured = "".join(
        f"{part} {100 * values[f'{part}/clean']:.1f}/{100 * values[f'{part}/robust']:.1f} %  "
        for part in ("train", "validation")
        if f"{part}/clean" in values
    )
    return (
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}  loss {values['train/loss']:.4f}  {measured}"
        f"{values['speed/images_per_second']:.0f} images/s  {duration(remaining)} left{'  best' if best else ''}"
    )
