"""Where a run of training stands."""

import dataclasses

from awp_tf.infra.checkpoints import Progress


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
