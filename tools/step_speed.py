"""The speed of training steps, each in a process of its own, in turns (tools.benchmark)."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import statistics
import tempfile
from collections.abc import Sequence

import numpy as np

from awp_tf.infra.apart import Apart, Facts, in_turns
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import table
from awp_tf.training.recipe import Recipe
from pipelines import _cli

_LIMITS = "limits"
_REFERENCE = str(pathlib.Path(__file__).with_name("reference_step.py"))
_REFERENCES = {"AT": "at_awp", "TRADES": "trades_awp"}
_PRECISIONS = {"float32": "float32", "mixed_bfloat16": "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all contenders share.

    Attributes:
        bindings: Of gin, after each recipe's files.
        x: Images [B, H, W, C] in [0, 1].
        y: Labels [B].
        classes: How many there are.
        devices: Which numbers of devices each recipe's step is shared by, in turn.
    """

    bindings: Sequence[str]
    x: np.ndarray
    y: np.ndarray
    classes: int
    devices: Sequence[int] = (1,)


def measure(recipes: Sequence[Sequence[str]], setting: Setting, runs: int, reference: str | None = None) -> list[Facts]:
    """Times the step of each recipe, the first of which ratios are to.

    Args:
        recipes: The gin files of each.
        setting: Bindings and the batch.
        runs: Timed steps of each.
        reference: A checkout of csdongxian/AWP, whose step is another contender.

    Returns:
        For each contender its name, images a second (the median, the slowest and the fastest step), how many times the
        first's speed that is, which part of the machine's limit, GiB of memory and seconds of start-up.

    Raises:
        UserError: A recipe makes no sense, or the reference has no such step.
    """
    _cli.parse(recipes[0], setting.bindings)
    first = _cli.call(Recipe)
    theirs = _reference_of(first) if reference else ()  # refused before anything is started
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        batch = str(pathlib.Path(place) / "batch.npz")
        np.savez(batch, x=setting.x, y=setting.y)
        enter = lambda *line: stack.enter_context(Apart(*line))  # noqa: E731
        children = {}
        for files, devices in itertools.product(recipes, setting.devices):
            line = (json.dumps(list(files)), json.dumps(list(setting.bindings)), batch, str(setting.classes))
            name = "+".join(files) + (f", {devices} devices" if devices > 1 else "")
            children[name] = enter("tools.recipe_step", *line, str(devices))
        if reference:
            children["reference (PyTorch)"] = enter(_REFERENCE, reference, batch, *theirs)
        precision = first.attack_precision or first.precision  # of most of the step
        limits = enter("tools.limits", precision.removeprefix("mixed_"))
        steps = in_turns({**children, _LIMITS: limits}, runs)
    fastest = {each: max(facts[each] for facts in steps[_LIMITS]) for each in ("product", "copy")}
    return _rows(children, steps, len(setting.y), fastest)


def as_table(rows: Sequence[Facts]) -> str:
    """The contenders, one below the other."""
    lines = []
    for row in rows:
        start = [f"{row[part]:.1f}" if part in row else "" for part in ("imported", "made", "traced", "first")]
        span = f"{row['slowest']:.2f}-{row['fastest']:.2f}"
        limit = f"{row['of_limit']:.2f}" if "of_limit" in row else ""
        speeds = [f"{row['images_per_second']:.2f}", span, f"{row['times_as_fast']:.2f}", limit]
        lines.append([row["name"], *speeds, f"{row['peak_gib']:.2f}", *start])
    head = [
        "",
        "images/s",
        "range",
        "times the first",
        "of the limit",
        "GiB",
        "imported, s",
        "made",
        "traced",
        "first step",
    ]
    can = f"a matrix product: {rows[0]['product'] / 1e9:.0f} GFLOP/s; a copy: {rows[0]['copy'] / 1e9:.1f} GB/s"
    return f"{table(head, lines)}\n{can}"


def _reference_of(recipe: Recipe) -> tuple[str, str]:
    """The name of the reference's step, and its precision."""
    method = type(recipe.method).__name__
    precisions = {recipe.precision, recipe.attack_precision or recipe.precision}
    if method not in _REFERENCES or len(precisions) > 1 or recipe.precision not in _PRECISIONS:
        raise UserError(
            f"--reference: expected a recipe of {' or '.join(_REFERENCES)}, all in {' or '.join(_PRECISIONS)}, "
            f"received {method} in {' and '.join(sorted(precisions))}."
        )
    return _REFERENCES[method], _PRECISIONS[recipe.precision]


def _rows(
    children: dict[str, Apart], steps: dict[str, list[Facts]], images: int, limits: dict[str, float]
) -> list[Facts]:
    seconds = {name: [facts["seconds"] for facts in steps[name]] for name in children}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    rows = []
    for name, child in children.items():
        row = {
            "name": name,
            "images_per_second": images / medians[name],
            "slowest": images / max(seconds[name]),
            "fastest": images / min(seconds[name]),
            "times_as_fast": first / medians[name],
            "peak_gib": steps[name][-1]["peak"],
            **child.ready,
            **limits,
        }
        if "operations" in row:
            row["of_limit"] = row["operations"] / limits["product"] / medians[name]
        rows.append(row)
    return rows
