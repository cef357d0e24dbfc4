"""The pictures of the project: one style, legible in grey and at the width of a page, as PNG and SVG."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.axes
import matplotlib.colors
import matplotlib.figure

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "awp_tf",  # or the same picture would be other bytes each time
    "svg.fonttype": "none",
}
PAGE = 6.5  # inches
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
_MARKERS = "osD^vPX*"

Files = dict[str, bytes]


def figure_files(name: str, draw: Callable[[], matplotlib.figure.Figure]) -> Files:
    """A figure as PNG and SVG, by file name; the same figure gives the same bytes."""
    files = {}
    with matplotlib.rc_context(_STYLE):
        for kind, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
            stream = io.BytesIO()
            draw().savefig(stream, format=kind, **options)
            files[f"{name}.{kind}"] = stream.getvalue()
    return files


def png(draw: Callable[[], matplotlib.figure.Figure]) -> bytes:
    """A figure as PNG."""
    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        draw().savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def legend_above(figure: matplotlib.figure.Figure, axes: matplotlib.axes.Axes) -> None:
    """What the lines of axes are, in rows above everything: inside, it would cover some of them."""
    handles, labels = axes.get_legend_handles_labels()
    letters = 14 * figure.get_figwidth()  # of the legend's size in a row
    columns = int(letters / (max(map(len, labels)) + 8))
    figure.legend(handles, labels, loc="outside upper left", ncols=min(max(columns, 1), len(labels)), frameon=False)


def literal(name: str) -> str:
    """A person's name for something, in which two dollar signs are no formula."""
    return name.replace("$", r"\$")


def line_style(number: int, count: int) -> dict[str, Any]:
    """How the line of one among several looks: told apart by dashes and markers, too."""
    return {
        "color": colour(number, count),
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 3,
        "markevery": (number % 3, 3),
        "linewidth": 1.4,
    }


def colour(number: int, count: int) -> tuple[float, ...]:
    """Dark to light, so that order survives in grey."""
    return tuple(matplotlib.colormaps["viridis"](0.8 * number / max(count - 1, 1)))
