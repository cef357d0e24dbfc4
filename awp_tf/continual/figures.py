"""The figures of a continual run, from the content of its result.json: accuracy, forgetting, sharpness."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
import tensorflow as tf

from awp_tf.continual.metrics import Rows, forgetting, summary
from awp_tf.evaluation.accuracy import correlation
from awp_tf.infra.figures import PAGE, Files, colour, figure_files, legend_above, line_style, png

_FEW = 10  # tasks for which a number finds a place in a cell

Result = Mapping[str, Any]


def draw_figures(result: Result) -> Files:
    """All figures of a run, finished or not, as PNG and SVG by file name.

    "accuracy" (the matrix), "curves" (each task through time); "sharpness" where it was measured of two tasks or more.

    Args:
        result: The content of result.json.
    """
    files = figure_files("accuracy", lambda: _accuracy(result)) | figure_files("curves", lambda: _curves(result))
    if "sharpness" in result and len(result["sharpness"]["rise"]) > 1:
        files |= figure_files("sharpness", lambda: _sharpness(result))
    return files


def heat_map(result: Result) -> np.ndarray:
    """The matrix of accuracies as a picture, uint8 [height, width, 3]."""
    pixels: np.ndarray = tf.io.decode_png(png(lambda: _accuracy(result)), channels=3).numpy()
    return pixels


def _accuracy(result: Result) -> matplotlib.figure.Figure:
    """Accuracy on each task after each task, one panel for clean and one for robust."""
    kinds = result["accuracy"]
    figure = matplotlib.figure.Figure(figsize=(_width(kinds), 3.3), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    matrices = {kind: 100 * _square(rows) for kind, rows in kinds.items()}
    least = 10 * np.floor(min(map(np.nanmin, matrices.values())) / 10)
    most = max(10 * np.ceil(max(map(np.nanmax, matrices.values())) / 10), least + 10)
    for panel, (kind, matrix) in zip(panels, matrices.items(), strict=True):
        image = _cells(panel, matrix, (least, most), "viridis", "{:.0f}")
        panel.set_title(_in_short(kind, kinds[kind]))
    figure.colorbar(image, ax=panels, label="accuracy (%)")
    return figure


def _in_short(kind: str, rows: Rows) -> str:
    found = summary(rows)
    moved = f"\nBWT {100 * found['bwt']:+.1f} points" if len(rows) > 1 else ""
    return f"{kind}: ACC {100 * found['acc']:.1f} %{moved}"


def _curves(result: Result) -> matplotlib.figure.Figure:
    """Each task from when it is learned, and the mean over the tasks so far."""
    kinds = result["accuracy"]
    figure = matplotlib.figure.Figure(figsize=(_width(kinds), 3.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for panel, (kind, rows) in zip(panels, kinds.items(), strict=True):
        _task_lines(panel, rows)
        after = range(1, len(rows) + 1)
        means = [100 * np.mean(row) for row in rows]
        style: dict[str, Any] = {"color": "black", "linewidth": 2.2, "markersize": 4, "zorder": 1}  # below the tasks
        panel.plot(after, means, "s-", label="mean over tasks so far", **style)
        panel.set(xlabel="after task", title=kind)
        _whole_tasks(panel, len(rows))
    panels[0].set_ylabel("accuracy (%)")
    legend_above(figure, panels[0])
    return figure


def _task_lines(panel: matplotlib.axes.Axes, rows: Rows) -> None:
    """A line a task; its number stands where the line begins, since a legend of 20 is none."""
    panel.plot(
        [], [], color="grey", marker="o", markersize=3, markevery=[0], linewidth=1, label="one task, from its number on"
    )
    for j in range(len(rows)):
        values = [100 * row[j] for row in rows[j:]]
        style = {**line_style(j, len(rows)), "marker": "o", "markevery": [0], "linewidth": 1.0}
        panel.plot(range(j + 1, len(rows) + 1), values, **style)
        panel.annotate(
            *(str(j + 1), (j + 1, values[0])),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7 if len(rows) <= _FEW else 5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.2},  # or lines would cross it
            zorder=4,
        )


def _sharpness(result: Result) -> matplotlib.figure.Figure:
    """The argument of FS-DGPM (Deng et al. 2021) as a picture: where the loss is sharp, more is forgotten later.

    Above how sharp the loss of each task is and how much of it is forgotten so far; below the one against the other,
    and sharpness through time.
    """
    alphas, rise = result["sharpness"]["alphas"], result["sharpness"]["rise"]
    largest = int(np.argmax(alphas))
    sharp = _square([[at[largest] for at in row] for row in rise])
    kind = "robust" if "robust" in result["accuracy"] else "clean"
    figure = matplotlib.figure.Figure(figsize=(PAGE, 5.8), layout="constrained")
    (above_left, above_right), (below_left, below_right) = figure.subplots(2, 2)
    _filled(figure, above_left, sharp, f"sharpness: rise of the loss at {_alpha(alphas[largest])}")
    _filled(figure, above_right, _lost_so_far(result["accuracy"][kind]), f"forgotten so far ({kind}, points)")
    _scatter(below_left, result["accuracy"], np.diagonal(sharp), alphas[largest])
    _through_time(below_right, alphas, rise)
    return figure


def _scatter(panel: matplotlib.axes.Axes, kinds: Mapping[str, Rows], sharp: np.ndarray, alpha: float) -> None:
    """One marker a task but the last, of which nothing can be forgotten: dark for the first tasks, light for late."""
    for number, (kind, rows) in enumerate(kinds.items()):
        lost = [100 * value for value in forgetting(rows)[:-1]]
        r = correlation(list(sharp[:-1]), lost)
        label = kind + (f", r = {r:.2f}" if np.isfinite(r) else "")
        for j, height in enumerate(lost):
            marker, fill = (("o", "full"), ("D", "none"))[number % 2]
            style: dict[str, Any] = {"color": colour(j, len(lost)), "fillstyle": fill, "markersize": 5}
            panel.plot(sharp[j], height, marker, label=None if j else label, **style)
    panel.set(
        xlabel=f"sharpness just after learning ({_alpha(alpha)})\nevery task but the last, the first ones dark",
        ylabel="forgotten in the end (points)",
    )
    panel.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), handletextpad=0.2)  # not on markers


def _through_time(panel: matplotlib.axes.Axes, alphas: Sequence[float], rise: Sequence[Any]) -> None:
    """The mean sharpness over the tasks so far, a line an alpha."""
    means = np.array([np.mean(row, axis=0) for row in rise])
    for number, alpha in enumerate(alphas):
        style = {**line_style(number, len(alphas)), "markevery": 1}
        panel.plot(range(1, len(rise) + 1), means[:, number], label=_alpha(alpha), **style)
    panel.set(xlabel="after task", ylabel="rise of the loss", title="sharpness, mean over tasks so far")
    _whole_tasks(panel, len(rise))
    panel.legend(frameon=True, framealpha=0.7, edgecolor="none")


def _filled(figure: matplotlib.figure.Figure, panel: matplotlib.axes.Axes, matrix: np.ndarray, title: str) -> None:
    """A triangle with a scale of its own; dark is bad, as in that of accuracies."""
    finite = matrix[np.isfinite(matrix)]
    least, most = (min(finite.min(), 0.0), max(finite.max(), 0.0)) if finite.size else (0.0, 0.0)
    most = most if most > least else 1.0
    image = _cells(panel, matrix, (least, most), "viridis_r", f"{{:.{_decimals(max(-least, most))}f}}")
    panel.set_title(title)
    figure.colorbar(image, ax=panel)


def _cells(
    panel: matplotlib.axes.Axes, matrix: np.ndarray, limits: tuple[float, float], colours: str, form: str
) -> matplotlib.image.AxesImage:
    """Draws a triangle of numbers: rows after a task, columns on a task."""
    image = panel.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap=colours, aspect="auto")
    count = len(matrix)
    if count <= _FEW:
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                dark = np.dot(image.to_rgba(value)[:3], (0.3, 0.59, 0.11)) < 0.5  # as an eye weighs them
                ink = "white" if dark else "black"
                panel.text(j, i, form.format(value), ha="center", va="center", color=ink, fontsize=_cell_size(count))
    places = _places(count)
    names = [str(place + 1) for place in places]
    panel.set_xticks(places, names)
    panel.set_yticks(places, names)
    panel.set(xlabel="task", ylabel="after task")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    return image


def _lost_so_far(rows: Rows) -> np.ndarray:
    """a[j][j] - a[i][j] in points, [T, T]."""
    return _square([[100 * value for value in forgetting(rows[: i + 1])] for i in range(len(rows))])


def _square(rows: Rows) -> np.ndarray:
    """A lower triangle, [T, T]; NaN above it and for what is not finite."""
    matrix = np.full((len(rows), len(rows)), np.nan)
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = np.where(np.isfinite(row), row, np.nan)
    return matrix


def _whole_tasks(panel: matplotlib.axes.Axes, count: int) -> None:
    panel.set_xlim(1 - 0.04 * count, count + 0.04 * count)
    panel.set_xticks([place + 1 for place in _places(count)])


def _places(count: int) -> range:
    """Of the tasks whose numbers stand at an axis, the first one among them."""
    return range(0, count, 1 if count <= _FEW else 1 + count // 7)


def _alpha(value: float) -> str:
    return rf"$\alpha$ = {value:g}"


def _decimals(most: float) -> int:
    """After the point, for two digits of the largest number."""
    return int(np.clip(1 - np.floor(np.log10(most)), 0, 3))


def _cell_size(count: int) -> float:
    return 9.0 if count <= 5 else 6.5


def _width(kinds: Mapping[str, Rows]) -> float:
    return PAGE if len(kinds) > 1 else PAGE / 1.6
