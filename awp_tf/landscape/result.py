"""What a landscape says in numbers: sharpness, the robust generalisation gap, and how the two go together."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from awp_tf.evaluation.accuracy import correlation, robust_gap
from awp_tf.infra.progress import table
from awp_tf.landscape.settings import SHARPNESS_AT, Landscape


@dataclasses.dataclass(frozen=True)
class Result:
    """The landscape around one network.

    Attributes:
        name: Of the network.
        group: Of the run it belongs to.
        epoch: After which it was saved; None where that does not matter.
        heights: Loss and accuracy at the points of each curve, [points, 2]; see Survey.run.
        settings: What was visited.
    """

    name: str
    group: str
    epoch: int | None
    heights: Mapping[str, np.ndarray]
    settings: Landscape

    def robust(self) -> dict[str, float]:
        """Robust accuracy on "train" and "test" images at the weights themselves, under the landscape's attack."""
        other = "test" if self.settings.split == "train" else "train"
        return {self.settings.split: float(self.heights["start"][0, 1]), other: float(self.heights["other"][0, 1])}

    @property
    def gap(self) -> float:
        """The robust generalisation gap, both splits under the landscape's attack."""
        robust = self.robust()
        return robust_gap(robust["train"], robust["test"])

    def lines(self, kind: str = "random") -> tuple[np.ndarray, np.ndarray]:
        """(alphas [P], losses [directions, P]) of the curves along one kind of direction: "random", "awp", "fixed"."""
        curves = [curve for curve in self.settings.curves if len(curve.directions) == 1]
        chosen = [
            c for c in curves if (kind == "fixed") == c.fixed and c.name.startswith("random " if c.fixed else kind)
        ]
        if not chosen:
            return np.zeros(0), np.zeros([0, 0])
        return chosen[0].coefficients[:, 0], np.stack([self.heights[c.name][:, 0] for c in chosen])

    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """(Alphas of an axis [P], losses [P, P])."""
        curve = next(curve for curve in self.settings.curves if curve.name == "plane")
        axis = np.unique(curve.coefficients[:, 0])
        return axis, self.heights["plane"][:, 0].reshape(len(axis), len(axis))

    def sharpness(self) -> dict[float, tuple[float, float]]:
        """g(alpha) - g(0) for |alpha| of SHARPNESS_AT, as far as visited: (mean, standard deviation over directions).

        The mean is over both signs and all random directions.
        """
        return sharpness(*self.lines())


def sharpness(alphas: np.ndarray, losses: np.ndarray) -> dict[float, tuple[float, float]]:
    """See Result.sharpness; losses [directions, len(alphas)]."""
    start = losses[:, [int(np.argmin(np.abs(alphas)))]]
    found = {}
    for size in SHARPNESS_AT:
        places = np.flatnonzero(np.abs(np.abs(alphas) - size) < 1e-9)
        if len(places):
            rise = (losses[:, places] - start).mean(axis=1)
            found[size] = (float(rise.mean()), float(rise.std(ddof=1)) if len(rise) > 1 else 0.0)
    return found


def summary(results: Sequence[Result]) -> list[dict[str, object]]:
    """One record a network, for JSON."""
    return [
        {
            "name": result.name,
            "run": result.group,
            "epoch": result.epoch,
            "loss": float(result.heights["start"][0, 0]),
            **{f"{part}_robust": value for part, value in result.robust().items()},
            "robust_gap": result.gap,
            "sharpness": {f"{size:g}": list(values) for size, values in result.sharpness().items()},
        }
        for result in results
    ]


def text(results: Sequence[Result]) -> str:
    """The records as a table, and the correlation of sharpness and gap where there are networks enough."""
    sizes = list(results[0].sharpness())
    header = ["network", "g(0)", "robust, train", "robust, test", "robust gap", *(f"g({s:g}) - g(0)" for s in sizes)]
    rows = []
    for result in results:
        robust = result.robust()
        accuracies = [f"{100 * value:.2f} %" for value in (robust["train"], robust["test"], result.gap)]
        rises = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in result.sharpness().values()]
        rows.append([result.name, f"{result.heights['start'][0, 0]:.4f}", *accuracies, *rises])
    lines = [table(header, rows)]
    for size in sizes if len(results) > 2 else []:
        found = correlation([result.sharpness()[size][0] for result in results], [result.gap for result in results])
        lines.append(f"correlation of g({size:g}) - g(0) with the robust gap over {len(results)} networks: {found:.2f}")
    return "\n\n".join(lines)
