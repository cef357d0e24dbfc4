"""What is said of a run: a line a task, curves, warnings, tables."""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from awp_tf.continual.tasks import Task
from awp_tf.infra.progress import table

Measured = dict[str, Any]  # after one task: accuracy, rise, basis, cost
Result = dict[str, Any]  # the content of result.json

_FULL = 0.9  # of a layer's inputs


def task_line(task: Task, accuracy: Mapping[str, Sequence[float]]) -> str:
    """Accuracies of the task just learned, and the mean over all so far."""
    said = [
        f"{name} {100 * row[-1]:.1f} % (all so far {100 * float(np.mean(row)):.1f} %)" for name, row in accuracy.items()
    ]
    return f"{task.name}  {'  '.join(said)}"


def points(measured: Measured) -> dict[str, float]:
    """TensorBoard's curves over tasks."""
    accuracy, sizes, rises = measured["accuracy"], measured.get("basis", {}), measured.get("rise", [])
    return {
        **{f"test {name}/task {j + 1}": a for name, row in accuracy.items() for j, a in enumerate(row)},
        **{f"mean/{name}": float(np.mean(row)) for name, row in accuracy.items()},
        **{f"sharpness/task {j + 1}": rise[-1] for j, rise in enumerate(rises)},
        **{f"basis/{layer}": float(kept) for layer, (kept, _) in sizes.items()},
    }


def warn_of_full(task: Task, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Says which layers have hardly a direction left in which they can learn.

    Directions that no input ever has (a pixel that is always 0) are in no basis, so that a full one may miss some.
    """
    for layer, (kept, inputs) in sizes.items():
        if kept >= _FULL * inputs:
            share = "all" if kept == inputs else f"{kept} of"
            print(
                f"warning: after {task.name} the basis of layer {layer} spans {share} its {inputs} inputs, so that "
                "it learns hardly anything new where importance is 1; lower THRESHOLD or THRESHOLD_INCREASE.",
                file=sys.stderr,
            )


def text(result: Mapping[str, Any], path: pathlib.Path) -> str:
    """The result as tables, and where everything is."""
    parts = []
    for kind, rows in result["accuracy"].items():
        header = [f"{kind}, %", *(f"task {j + 1}" for j in range(len(rows)))]
        cells = [
            [f"after task {i + 1}", *(f"{100 * a:.1f}" for a in row), *[""] * (len(rows) - len(row))]
            for i, row in enumerate(rows)
        ]
        found = {name: f"{100 * value:.2f}" for name, value in result["summary"][kind].items()}
        parts += [
            table(header, cells),
            f"{kind}: ACC {found['acc']} %, BWT {found['bwt']} points over the T - 1 earlier tasks (divided by T, as "
            f"in some codes: {found['bwt_over_t']}), learning accuracy {found['learning_accuracy']} %",
        ]
    return "\n" + "\n\n".join(parts) + f"\n\nwritten to {path}: last.keras, result.json, figures, tensorboard/"
