"""The figures of a landscape: loss along directions, robust gap, plane."""

import textwrap
from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import numpy as np

from awp_tf.infra.figures import PAGE, Files, colour, figure_files, legend_above, line_style, literal
from awp_tf.landscape.result import Result


def draw_figures(results: Sequence[Result]) -> Files:
    """All figures of a survey, by file name."""
    files = figure_files("landscape", lambda: _landscape(results))
    if results[0].lines("fixed")[1].size:
        files |= figure_files("landscape_fixed_images", lambda: _fixed(results))
    if results[0].lines("awp")[1].size:
        files |= figure_files("landscape_awp_direction", lambda: _awp(results))
    if any(curve.name == "plane" for curve in results[0].settings.curves):
        for number, result in enumerate(results, start=1):
            files |= figure_files(f"landscape_plane_{number}", lambda result=result: _plane(result))  # type: ignore[misc]
    return files


def _landscape(results: Sequence[Result]) -> matplotlib.figure.Figure:
    """Left the loss along random directions, right the robust generalisation gap."""
    figure = matplotlib.figure.Figure(figsize=(PAGE, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _curves(left, results, "random")
    left.set(xlabel=r"$\alpha$ (random direction, filter-normalised)", ylabel=r"adversarial loss $g(\alpha)$")
    legend_above(figure, left)
    through_training = len({result.group for result in results}) == 1 and all(r.epoch is not None for r in results)
    (_gap_by_epoch if through_training and len(results) > 2 else _gap_by_network)(right, results)
    return figure


def _fixed(results: Sequence[Result]) -> matplotlib.figure.Figure:
    """The same directions with images attacked anew at every alpha, and with images crafted once."""
    figure = matplotlib.figure.Figure(figsize=(PAGE, 3.0), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = (r"images attacked anew at every $\alpha$", r"images crafted once, at $\alpha = 0$")
    for panel, kind, title in zip(axes, ("random", "fixed"), titles, strict=True):
        _curves(panel, results, kind)
        panel.set(xlabel=r"$\alpha$", title=title)
    axes[0].set_ylabel(r"adversarial loss $g(\alpha)$")
    legend_above(figure, axes[0])
    return figure


def _awp(results: Sequence[Result]) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure(figsize=(PAGE / 1.6, 3.0), layout="constrained")
    axes = figure.subplots()
    _curves(axes, results, "awp")
    axes.set(xlabel=r"relative length $\|v\| / \|w\|$ along the AWP direction", ylabel="adversarial loss")
    legend_above(figure, axes)
    return figure


def _curves(axes: matplotlib.axes.Axes, results: Sequence[Result], kind: str) -> None:
    """Mean over directions, and a band of one standard deviation."""
    for number, result in enumerate(results):
        alphas, losses = result.lines(kind)
        mean = losses.mean(axis=0)
        axes.plot(alphas, mean, label=literal(result.name), **line_style(number, len(results)))
        if len(losses) > 1:
            spread = losses.std(axis=0, ddof=1)
            band = colour(number, len(results))
            axes.fill_between(alphas, mean - spread, mean + spread, color=band, alpha=0.15, linewidth=0)


def _gap_by_network(axes: matplotlib.axes.Axes, results: Sequence[Result]) -> None:
    places = list(range(len(results)))
    colours = [colour(number, len(results)) for number in places]
    bars = axes.barh(places, [100 * result.gap for result in results], color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.set_yticks(places, [textwrap.fill(literal(result.name), 20) for result in results])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="robust gap (points)")


def _gap_by_epoch(axes: matplotlib.axes.Axes, results: Sequence[Result]) -> None:
    epochs = [result.epoch or 0 for result in results]
    train, test = (np.array([100 * result.robust()[part] for result in results]) for part in ("train", "test"))
    axes.plot(epochs, train, "o--", color="0.35", markersize=3, label="training images")
    axes.plot(epochs, test, "s-", color="black", markersize=3, label="test images")
    axes.fill_between(epochs, test, train, color="0.8", linewidth=0, label="robust generalisation gap")
    bottom, top = axes.get_ylim()
    axes.set(xlabel="epoch", ylabel="robust accuracy (%)", ylim=(bottom, top + 0.4 * (top - bottom)))
    axes.legend(frameon=False, loc="upper left")


def _plane(result: Result) -> matplotlib.figure.Figure:
    """Contour lines and surface over two random directions."""
    axis, losses = result.plane()
    x, y = np.meshgrid(axis, axis, indexing="ij")
    figure = matplotlib.figure.Figure(figsize=(PAGE, 2.9), layout="constrained")
    flat = figure.add_subplot(1, 2, 1)
    levels = np.geomspace(losses.min() + 1e-9, losses.max() + 2e-9, 12)  # even steps would crowd in the corners
    lines = flat.contour(x, y, losses, levels=levels, colors="black", linewidths=0.7)
    flat.contourf(x, y, losses, levels=levels, cmap="Greys", norm="log", alpha=0.5)
    flat.clabel(lines, levels[1::2], fontsize=7, fmt="%.2g")
    flat.plot([0], [0], "k+", markersize=8)
    flat.set(xlabel=r"$\alpha$", ylabel=r"$\beta$", aspect="equal")
    deep = figure.add_subplot(1, 2, 2, projection="3d")
    deep.plot_surface(x, y, losses, cmap="viridis", rcount=len(axis), ccount=len(axis), linewidth=0)
    deep.set(xlabel=r"$\alpha$", ylabel=r"$\beta$", title="height: loss")
    figure.suptitle(f"adversarial loss around {literal(result.name)}", fontsize=9)
    return figure
