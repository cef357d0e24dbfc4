"""The figures of a run of tasks: accuracy as a matrix and as curves, sharpness beside forgetting."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
import tensorflow as tf

from awp_tf.continual.metrics import forgetting
from awp_tf.infra.figures import PAGE, Files, colour, figure_files, line_style, png

Result = Mapping[str, Any]
_FEW = 10  # tasks whose numbers fit into the cells of a matrix, and whose names into a legend


def draw_figures(result: Result) -> Files:
    """All figures of a result.json, by file name."""
    files = figure_files("accuracy", lambda: _matrices(result)) | figure_files("curves", lambda: _curves(result))
    if "sharpness" in result:
        files |= figure_files("sharpness", lambda: _sharpness(result))
    return files


def heat_map(result: Result) -> tf.Tensor:
    """The matrices as pixels, uint8 [height, width, 3], for TensorBoard."""
    return tf.io.decode_png(png(lambda: _matrices(result)), channels=3)


def _matrices(result: Result) -> matplotlib.figure.Figure:
    """Accuracy on each task (column) after each task (row), clean and robust."""
    kinds = result["accuracy"]
    figure = matplotlib.figure.Figure(figsize=(PAGE if len(kinds) > 1 else PAGE / 1.7, 3.1), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for panel, (kind, rows) in zip(panels, kinds.items(), strict=True):
        found = result["summary"][kind]
        image = _matrix(panel, 100 * _square(rows))
        bwt = f", BWT {100 * found['bwt']:.1f} points" if np.isfinite(found["bwt"]) else ""
        panel.set(title=f"{kind}: ACC {100 * found['acc']:.1f} %{bwt}", xlabel="task", ylabel="after task")
        figure.colorbar(image, ax=panel, label="accuracy (%)", shrink=0.8)
    return figure


def _matrix(axes: matplotlib.axes.Axes, values: np.ndarray) -> Any:
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100)
    count = len(values)
    ticks = np.arange(0, count, 1 if count <= _FEW else 5)
    axes.set_xticks(ticks, [str(k + 1) for k in ticks])
    axes.set_yticks(ticks, [str(k + 1) for k in ticks])
    axes.spines[:].set_visible(False)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        if count <= _FEW:
            shade = "black" if values[i, j] > 60 else "white"
            axes.text(
                j, i, f"{values[i, j]:.0f}", ha="center", va="center", color=shade, fontsize=8 if count < 8 else 6
            )
    return image


def _curves(result: Result) -> matplotlib.figure.Figure:
    """Accuracy of each task as others follow, and the mean over all so far."""
    kinds = result["accuracy"]
    figure = matplotlib.figure.Figure(figsize=(PAGE, 3.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for panel, (kind, rows) in zip(panels, kinds.items(), strict=True):
        count, values = len(rows), 100 * _square(rows)
        for j in range(count):
            style = {**line_style(j, count), "markevery": 1, "alpha": 1.0 if count <= _FEW else 0.6}
            panel.plot(np.arange(j, count) + 1, values[j:, j], label=f"task {j + 1}", **style)
        panel.plot(np.arange(count) + 1, np.nanmean(values, axis=1), "k", linewidth=2.5, label="mean so far")
        panel.set(title=kind, xlabel="tasks learned")
        panel.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    chosen = slice(None) if len(labels) <= _FEW + 1 else slice(-1, None)
    figure.legend(handles[chosen], labels[chosen], loc="outside right upper", frameon=False)
    return figure


def _sharpness(result: Result) -> matplotlib.figure.Figure:
    """Left how sharp each task's loss is after each task, right sharpness as learned beside what is forgotten."""
    sharpness, kind = result["sharpness"], next(reversed(result["accuracy"]))
    rises = [[rise[-1] for rise in row] for row in sharpness["rise"]]
    values, count = _square(rises), len(rises)
    figure = matplotlib.figure.Figure(figsize=(PAGE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for j in range(count):
        left.plot(
            np.arange(j, count) + 1, values[j:, j], label=f"task {j + 1}", **{**line_style(j, count), "markevery": 1}
        )
    left.plot(np.arange(count) + 1, np.nanmean(values, axis=1), "k", linewidth=2.5, label="mean so far")
    rise = rf"sharpness: rise of the loss at $\alpha = {sharpness['alphas'][-1]:g}$"
    left.set(xlabel="tasks learned", ylabel=rise)
    left.xaxis.get_major_locator().set_params(integer=True)
    if count <= _FEW:
        left.legend(frameon=False)
    _forgotten(right, [row[-1] for row in rises], forgetting(result["accuracy"][kind]), kind)
    return figure


def _forgotten(axes: matplotlib.axes.Axes, rises: Sequence[float], lost: Sequence[float], kind: str) -> None:
    """Every task but the last, which had no time to be forgotten."""
    count = len(rises)
    for j in range(count - 1):
        axes.plot(rises[j], 100 * lost[j], "o", color=colour(j, count))
        axes.annotate(str(j + 1), (rises[j], 100 * lost[j]), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.margins(0.15)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="sharpness just after the task was learned", ylabel=f"forgotten in the end ({kind}, points)")


def _square(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Rows of growing length as a matrix, NaN where a task was yet to come."""
    values = np.full([len(rows), len(rows)], np.nan)
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
    return values
