"""Finished runs of pipelines.continual, by recipe and seed: their numbers, tables and figures."""

import dataclasses
import glob
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.axes
import matplotlib.figure

from awp_tf.continual.metrics import summary
from awp_tf.infra.errors import UserError, first_line, one_of
from awp_tf.infra.figures import PAGE, Files, figure_files, legend_above, line_style, literal
from awp_tf.infra.progress import table
from awp_tf.infra.run_folder import read_run
from awp_tf.study.summary import mean_and_error

_SHORT = {"ACC": "acc", "BWT": "bwt", "LA": "learning_accuracy"}
_SECONDS = "training, s"
_SHARPNESS = "sharpness at "


@dataclasses.dataclass(frozen=True)
class ContinualRun:
    """One finished run.

    Attributes:
        recipe: The name of its folder without -seedN.
        seed: N; 0 where the name has none.
        tasks: How many.
        accuracy: ACC, BWT and LA (learning accuracy) in points; "robust ACC" and so on where it was measured.
        sharpness: By alpha, how much the loss rises in the end, the mean over tasks; empty where not measured.
        seconds: Of training and gradient bases, without tests.
    """

    recipe: str
    seed: int
    tasks: int
    accuracy: Mapping[str, float]
    sharpness: Mapping[float, float]
    seconds: float

    def columns(self, alpha: float) -> dict[str, float]:
        """Its numbers by the names of columns, sharpness that at alpha; those that it has."""
        sharp = {f"{_SHARPNESS}{at:g}": rise for at, rise in self.sharpness.items() if at == alpha}
        every = {**self.accuracy, **sharp, _SECONDS: self.seconds}
        return {name: value for name, value in every.items() if math.isfinite(value)}


Groups = Mapping[str, Sequence[ContinualRun]]
Numbers = Mapping[str, Mapping[str, Mapping[int, float]]]  # by column, recipe and seed


def read_runs(patterns: Sequence[str]) -> dict[str, list[ContinualRun]]:
    """Runs by recipe, in the order given.

    Args:
        patterns: Folders, or patterns of folders such as runs/er-seed*.

    Raises:
        UserError: One is not the folder of a finished continual run, comes twice, or has another number of tasks.
    """
    groups: dict[str, list[ContinualRun]] = {}
    for path in [path for pattern in patterns for path in _folders(pattern)]:
        run = _read(path)
        others = groups.setdefault(run.recipe, [])
        if run.seed in [other.seed for other in others]:
            raise UserError(f"{path}: expected each recipe and seed once, received {path.name} twice; leave one out.")
        others.append(run)
    counts = sorted({run.tasks for runs in groups.values() for run in runs})
    if len(counts) != 1:
        found = " and ".join(map(str, counts)) or "no run"
        raise UserError(f"expected runs over equally many tasks, received {found}; compare those of one kind.")
    return groups


def numbers(groups: Groups) -> Numbers:
    """By column, recipe and seed; a recipe is in a column where all its runs have the number.

    Sharpness is that at the largest alpha which all runs that measured any have in common.
    """
    runs = [run for each in groups.values() for run in each]
    common = set.intersection(*[set(run.sharpness) for run in runs if run.sharpness] or [set()])
    alpha = max(common, default=math.nan)
    found = {recipe: {run.seed: run.columns(alpha) for run in each} for recipe, each in groups.items()}
    names = [*_SHORT, *(f"robust {name}" for name in _SHORT), f"{_SHARPNESS}{alpha:g}", _SECONDS]
    columns = {
        name: {
            recipe: {seed: values[name] for seed, values in seeds.items()}
            for recipe, seeds in found.items()
            if all(name in values for values in seeds.values())
        }
        for name in names
    }
    return {name: recipes for name, recipes in columns.items() if recipes}


def means(groups: Groups) -> str:
    """A Markdown table: a row a recipe, mean ± standard error over seeds; "-" where a run lacks the number."""
    found = numbers(groups)
    rows = [
        [recipe, str(len(runs)), *(_cell(name, list(found[name].get(recipe, {}).values())) for name in found)]
        for recipe, runs in groups.items()
    ]
    return table(["recipe", "seeds", *found], rows)


def differences(groups: Groups, against: str) -> str:
    """A Markdown table: what each recipe has more than one of them, pair by pair over the seeds that both have.

    Args:
        groups: All runs.
        against: The one.

    Raises:
        UserError: There is no such recipe.
    """
    one_of("against", against, list(groups))
    found = numbers(groups)
    rows = []
    for recipe, runs in groups.items():
        if recipe != against:
            seeds = sorted({run.seed for run in runs} & {run.seed for run in groups[against]})
            cells = [_cell(name, _apart(found[name], recipe, against, seeds), "+") for name in found]
            rows.append([recipe, str(len(seeds)), *cells])
    return table([f"minus {against}", "seeds", *found], rows)


def draw_figures(groups: Groups) -> Files:
    """ACC of the recipes ("continual_acc"), and sharpness against BWT ("continual_sharpness") where both are there."""
    found = numbers(groups)
    files = figure_files("continual_acc", lambda: _accuracies(found, list(groups)))
    sharp = next((name for name in found if name.startswith(_SHARPNESS)), None)
    if sharp and "BWT" in found:
        files |= figure_files("continual_sharpness", lambda: _scatter(found, sharp, list(groups)))
    return files


def _folders(pattern: str) -> list[pathlib.Path]:
    """What matches nothing is taken as a folder, of which it is then said that it is none."""
    path = pathlib.Path(pattern).expanduser()
    found = [] if path.is_dir() else sorted(glob.glob(str(path)))
    return [pathlib.Path(name) for name in found] or [path]


def _read(path: pathlib.Path) -> ContinualRun:
    name = path.resolve().name
    parts = re.fullmatch(r"(.+)-seed(\d+)", name)
    recipe, seed = (parts[1], int(parts[2])) if parts else (name, 0)
    result = _result(path)
    try:
        seconds = sum(each["train_seconds"] + each.get("basis_seconds", 0.0) for each in result["cost"])
        tasks = len(result["accuracy"]["clean"])
        return ContinualRun(recipe, seed, tasks, _accuracy(result), _sharpness(result), float(seconds))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _no_continual_run(path, error) from error


def _result(path: pathlib.Path) -> Mapping[str, Any]:
    return read_run(path).result or {}


def _no_continual_run(path: pathlib.Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: expected the folder of a run of pipelines.continual, which this is not "
        f"({type(error).__name__}: {first_line(error)}); leave it out."
    )


def _accuracy(result: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for before, kind in (("", "clean"), ("robust ", "robust")):
        if kind in result["accuracy"]:
            said = summary(result["accuracy"][kind])
            found |= {before + name: 100 * said[key] for name, key in _SHORT.items()}
    return found


def _sharpness(result: Mapping[str, Any]) -> dict[float, float]:
    if "sharpness" not in result:
        return {}
    last = result["sharpness"]["rise"][-1]
    return {float(a): sum(rise[k] for rise in last) / len(last) for k, a in enumerate(result["sharpness"]["alphas"])}


def _apart(recipes: Mapping[str, Mapping[int, float]], ours: str, theirs: str, seeds: Sequence[int]) -> list[float]:
    """Differences of a column, seed by seed; none where one of the two lacks the number."""
    if ours not in recipes or theirs not in recipes:
        return []
    return [recipes[ours][seed] - recipes[theirs][seed] for seed in seeds]


def _cell(name: str, values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    digits = 0 if name == _SECONDS else 3 if name.startswith(_SHARPNESS) else 2
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.{digits}f}" + (f" ± {error:.{digits}f}" if math.isfinite(error) else "")


def _accuracies(found: Numbers, recipes: Sequence[str]) -> matplotlib.figure.Figure:
    """ACC with standard errors, a row a recipe: so names of any length find a place."""
    kinds = [name for name in ("ACC", "robust ACC") if name in found]
    figure = matplotlib.figure.Figure(figsize=(PAGE, 0.8 + 0.3 * len(recipes)), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        for recipe, seeds in found[kind].items():
            _bar(panel, list(seeds.values()), [recipes.index(recipe)], "o", color="black")
        panel.set(xlabel=f"{kind} (%)", ylim=(len(recipes) - 0.5, -0.5))
        panel.grid(axis="y", color="0.9")
    panels[0].set_yticks(range(len(recipes)), list(map(literal, recipes)))
    return figure


def _scatter(found: Numbers, sharp: str, recipes: Sequence[str]) -> matplotlib.figure.Figure:
    """Every recipe: how sharp the loss is in the end, and what was forgotten until then."""
    kinds = [name for name in ("BWT", "robust BWT") if name in found]
    figure = matplotlib.figure.Figure(figsize=(PAGE if len(kinds) > 1 else PAGE / 1.6, 3.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        for number, recipe in enumerate(recipes):
            if recipe in found[sharp] and recipe in found[kind]:
                style = line_style(number, len(recipes))
                x, y = list(found[sharp][recipe].values()), list(found[kind][recipe].values())
                _bar(panel, x, y, style["marker"], color=style["color"], label=literal(recipe))
        panel.set(xlabel=f"{sharp} (rise of the loss)", ylabel=f"{kind} (points)")
    if panels[0].get_legend_handles_labels()[1]:
        legend_above(figure, panels[0])
    return figure


def _bar(axes: matplotlib.axes.Axes, x: Sequence[float], y: Sequence[float], marker: str, **style: Any) -> None:
    """The mean of (x, y) with standard errors, where there are several values."""
    (across, x_error), (up, y_error) = mean_and_error(x), mean_and_error(y)
    named = (("xerr", x_error), ("yerr", y_error))
    errors: dict[str, Any] = {name: error for name, error in named if math.isfinite(error)}
    axes.errorbar([across], [up], fmt=marker, markersize=5, capsize=2, elinewidth=1, **errors, **style)
