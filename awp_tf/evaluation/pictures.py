"""Figures of an evaluation, as PNG files."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np

from awp_tf.evaluation.sanity import AccuracyCurve
from awp_tf.infra.figures import PAGE, colour, legend_above, literal, png
from awp_tf.infra.tensorboard import adversarial_grid


def curve(found: AccuracyCurve, *, threat: str, epsilon: float, worst: float) -> bytes:
    """Accuracy against epsilon, and the evaluation's own result at its epsilon."""

    def draw() -> matplotlib.figure.Figure:
        figure = matplotlib.figure.Figure(figsize=(PAGE, 4), layout="constrained")
        axes = figure.subplots()
        inner = len(found.epsilons) - 1
        accuracies = [100 * accuracy for accuracy in found.accuracies]
        axes.plot(found.epsilons[:inner], accuracies[:inner], "o-", color=colour(0, 2), label="PGD-20 on the margin")
        label = f"worst case of this evaluation: {100 * worst:.1f} %"
        axes.plot([epsilon], [100 * worst], "D", color="black", markersize=8, label=label)
        axes.axvline(epsilon, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"epsilon ({threat}, pixels in [0, 1])", ylabel="accuracy (%)", ylim=(0, 100))
        axes.set_title(f"{found.images} images; {accuracies[-1]:.1f} % where epsilon covers every image")
        legend_above(figure, axes)
        return figure

    return png(draw)


def classes(per_class: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> bytes:
    """Clean and robust accuracy of each class, as bars."""
    count = len(per_class["clean"])
    labels = [literal(name) for name in names] if len(names) == count else [str(k) for k in range(count)]
    long = max(map(len, labels)) > 2

    def draw() -> matplotlib.figure.Figure:
        figure = matplotlib.figure.Figure(figsize=(max(PAGE, 0.45 * count + 2), 4), layout="constrained")
        axes = figure.subplots()
        for name, shade, width in (("clean", "0.75", 0.8), ("robust", colour(0, 2), 0.5)):
            axes.bar(range(count), [100 * (value or 0) for value in per_class[name]], width, color=shade, label=name)
        axes.set(ylabel="accuracy (%)", ylim=(0, 100))
        axes.set_xticks(range(count), labels, rotation=45 if long else 0, ha="right" if long else "center")
        legend_above(figure, axes)
        return figure

    return png(draw)


def examples(clean: np.ndarray, adversarial: np.ndarray, titles: Sequence[str]) -> bytes:
    """Clean images, adversarial ones and their difference, and by how much that is stretched.

    Args:
        clean: In [0, 1], [M, H, W, C].
        adversarial: Theirs.
        titles: For instance "cat: dog".
    """
    grid = adversarial_grid(clean, adversarial)
    height, width = grid.shape[0] / 3, grid.shape[1] / len(clean)
    largest = np.abs(adversarial - clean).max(axis=(1, 2, 3))

    def draw() -> matplotlib.figure.Figure:
        figure = matplotlib.figure.Figure(figsize=(1.4 * max(len(clean), 4), 5), layout="constrained")
        axes = figure.subplots()
        axes.imshow(grid if grid.shape[-1] == 3 else grid[..., 0], cmap="gray", vmin=0, vmax=1)
        axes.spines[:].set_visible(False)
        middles = width * (np.arange(len(clean)) + 0.5)
        axes.set_xticks(middles, [f"x {1 / (2 * size + 1e-12):.0f}" for size in largest])
        axes.set_yticks(height * (np.arange(3) + 0.5), ["clean", "adversarial", "difference"], rotation=90, va="center")
        axes.tick_params(length=0)
        above = axes.secondary_xaxis("top")
        above.set_xticks(middles, [literal(title) for title in titles])
        above.tick_params(length=0)
        above.spines[:].set_visible(False)
        return figure

    return png(draw)
