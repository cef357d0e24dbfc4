"""What a run of tasks comes to: accuracy in the end, and what was forgotten (Lopez-Paz & Ranzato, NeurIPS 2017)."""

import math
from collections.abc import Sequence

import numpy as np

Rows = Sequence[Sequence[float]]  # row i: accuracy on tasks 0..i after task i


def forgetting(rows: Rows) -> list[float]:
    """How much less each task is known in the end than just after it was learned; the last task by nothing."""
    return [rows[j][j] - rows[-1][j] for j in range(len(rows))]


def summary(rows: Rows) -> dict[str, float]:
    """The usual numbers, also of a run that is not finished.

    Args:
        rows: Of the tasks so far, in 0..1.

    Returns:
        "acc": ACC, the mean over tasks after the last one. "bwt": backward transfer, the mean over all tasks but the last
        of how accuracy changed since they were learned, 1/(T-1) sum (GEM, GPM; NaN for one task). "bwt_over_t": the same
        sum over T, as some codes, FS-DGPM's among them, divide it. "learning_accuracy": the mean of what each task had just
        after it was learned.

    Example:
        >>> from awp_tf.continual.metrics import summary
        >>> {name: round(value, 2) for name, value in summary([[0.9], [0.7, 0.8]]).items()}
        {'acc': 0.75, 'bwt': -0.2, 'bwt_over_t': -0.1, 'learning_accuracy': 0.85}
    """
    tasks, lost = len(rows), -sum(forgetting(rows))
    return {
        "acc": float(np.mean(rows[-1])),
        "bwt": lost / (tasks - 1) if tasks > 1 else math.nan,
        "bwt_over_t": lost / tasks,
        "learning_accuracy": float(np.mean([row[-1] for row in rows])),
    }
