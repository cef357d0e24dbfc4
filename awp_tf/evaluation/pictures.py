"""Figures of an evaluation, as PNG files."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.figure
import numpy as np

from awp_tf.evaluation.sanity import Curve

_DARK, _LIGHT, _RED = "#1f4e79", "#b8c9dc", "#c0392b"  # legible in grey: dark, light, and a marker
_LITERAL = matplotlib.rc_context({"text.parse_math": False})  # a class may be called $$


def curve(found: Curve, *, threat: str, epsilon: float, worst: float) -> bytes:
    """Accuracy against epsilon, and the evaluation's own result at its epsilon."""
    figure, axes = _figure(6, 4)
    inner = len(found.epsilons) - 1
    axes.plot(
        found.epsilons[:inner],
        [100 * a for a in found.accuracies[:inner]],
        "o-",
        color=_DARK,
        label="PGD-20 on the margin",
    )
    axes.plot(
        [epsilon],
        [100 * worst],
        "D",
        color=_RED,
        markersize=8,
        label=f"worst case of this evaluation: {100 * worst:.1f} %",
    )
    axes.axvline(epsilon, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel=f"epsilon ({threat}, pixels in [0, 1])", ylabel="accuracy (%)", ylim=(0, 100))
    axes.set_title(
        f"{found.images} images; {100 * found.accuracies[-1]:.1f} % where epsilon covers every image", fontsize=9
    )
    axes.legend(frameon=False)
    return _png(figure)


@_LITERAL
def classes(per_class: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> bytes:
    """Clean and robust accuracy of each class, as bars."""
    count = len(per_class["clean"])
    labels = list(names) if len(names) == count else [str(k) for k in range(count)]
    figure, axes = _figure(max(6, 0.45 * count + 2), 4)
    places = np.arange(count)
    for name, colour, width in (("clean", _LIGHT, 0.8), ("robust", _DARK, 0.5)):
        axes.bar(places, [100 * (value or 0) for value in per_class[name]], width, color=colour, label=name)
    axes.set(ylabel="accuracy (%)", ylim=(0, 100))
    axes.set_xticks(
        places,
        labels,
        rotation=45 if max(map(len, labels)) > 2 else 0,
        ha="right" if max(map(len, labels)) > 2 else "center",
    )
    axes.legend(frameon=False, ncols=2, loc="upper right")
    return _png(figure)


@_LITERAL
def examples(clean: np.ndarray, adversarial: np.ndarray, titles: Sequence[str]) -> bytes:
    """Clean images, adversarial ones and their difference, which is stretched until it fills the range.

    Args:
        clean: In [0, 1], [M, H, W, C].
        adversarial: Theirs.
        titles: For instance "cat: dog".
    """
    difference = adversarial - clean
    largest = np.abs(difference).max((1, 2, 3), keepdims=True)
    amplified = difference / (2 * largest + 1e-12) + 0.5
    figure = matplotlib.figure.Figure(figsize=(1.4 * max(len(clean), 4), 5), layout="constrained")
    grid = figure.subplots(3, len(clean), squeeze=False)
    names = ("clean", "adversarial", "difference")
    for row, (name, images) in enumerate(zip(names, (clean, adversarial, amplified), strict=True)):
        for column, image in enumerate(images):
            axes = grid[row, column]
            axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(titles[column], fontsize=8)
            elif row == 2:
                axes.set_xlabel(f"x {1 / (2 * largest[column, 0, 0, 0] + 1e-12):.0f}", fontsize=8)
        grid[row, 0].set_ylabel(name, fontsize=9)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: matplotlib.figure.Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
