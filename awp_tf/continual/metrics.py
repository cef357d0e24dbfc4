"""What accuracies on every task after every task say of a learner.

Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017. Rows are the lower triangle of
their matrix: a[i][j] is the accuracy on task j after learning task i, j <= i.
"""

from collections.abc import Sequence

import numpy as np

from awp_tf.infra.errors import UserError

Rows = Sequence[Sequence[float]]


def summary(rows: Rows) -> dict[str, float]:
    """The matrix in four numbers; of an unfinished run, those of the tasks so far.

    Args:
        rows: a[i][j], accuracy in 0..1 on task j after task i, one value more in each row.

    Returns:
        acc: The mean of the last row (ACC).
        bwt: Backward transfer (BWT), the sum over tasks of a[T-1][j] - a[j][j], over the T - 1 earlier tasks; NaN
            for one task.
        bwt_over_t: The same sum over T, as in the released code of FS-DGPM; to compare, multiply by T / (T - 1).
        learning_accuracy: The mean accuracy of a task right after it is learned.

    Raises:
        UserError: The rows are no lower triangle.

    Example:
        >>> found = summary([[0.9], [0.8, 0.95], [0.5, 0.85, 0.9]])
        >>> {name: round(value, 3) for name, value in found.items()}
        {'acc': 0.75, 'bwt': -0.25, 'bwt_over_t': -0.167, 'learning_accuracy': 0.917}
    """
    lost = sum(forgetting(rows))
    earlier = len(rows) - 1
    return {
        "acc": float(np.mean(rows[-1])),
        "bwt": -lost / earlier if earlier else float("nan"),
        "bwt_over_t": -lost / len(rows),
        "learning_accuracy": float(np.mean([row[-1] for row in rows])),
    }


def forgetting(rows: Rows) -> list[float]:
    """How much accuracy of each task is lost in the end, a[j][j] - a[T-1][j]; of the last one nothing.

    Args:
        rows: As in summary.

    Returns:
        One value a task, in -1..1; below 0 where later tasks helped.

    Raises:
        UserError: The rows are no lower triangle.

    Example:
        >>> [round(value, 3) for value in forgetting([[0.9], [0.8, 0.95], [0.5, 0.85, 0.9]])]
        [0.4, 0.1, 0.0]
    """
    lengths = [len(row) for row in rows]
    if not lengths or lengths != list(range(1, len(rows) + 1)):
        raise UserError(
            f"rows: expected accuracies on 1, 2, 3, ... tasks, received rows of {lengths}; give one row a task learned."
        )
    return [float(row[-1] - last) for row, last in zip(rows, rows[-1], strict=True)]
