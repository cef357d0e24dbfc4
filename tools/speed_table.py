"""All that takes time, in one table (--everything of tools.benchmark): the step of every recipe, attacks, input.

What matters most comes first, so that a table that has to end early says that.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from awp_tf.data import Data
from awp_tf.infra.apart import Facts
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import table
from awp_tf.training.recipe import Recipe
from pipelines import _cli
from tools import attack_speed, input_speed, step_speed
from tools.step_speed import Setting

_FIRST = ("at_awp", "trades_awp", "at", "trades")  # in every precision
_EXTRA = ["EXTRA='extra.npz'"]  # a step reads no images but those that it is handed
_NEEDS = {"rst": _EXTRA, "rst_awp": _EXTRA, "dm_trades": _EXTRA}
_ELSEWHERE = ("imagenet_at_awp", "pretrain", "pretrain_awp")  # made for larger images, and for a network of a file


def rows(gin: pathlib.Path, setting: Setting, runs: int, minutes: float) -> Iterator[Facts]:
    """What is measured, one after the other.

    Args:
        gin: The folder of the recipes.
        setting: Bindings for all of them, and the batch.
        runs: How often each is timed.
        minutes: Nothing is begun later; what is left is named.
    """
    end, left = time.monotonic() + 60 * minutes, []
    for name, work in _works(gin, setting, runs):
        if time.monotonic() > end:
            left.append(name)
            continue
        try:
            yield from work()
        except UserError as error:
            yield {"name": name, "error": str(error)}
    if left:
        yield {"name": f"{len(left)} more", "error": f"{minutes:g} minutes are over: {', '.join(left)}"}


def as_line(row: Facts) -> list[str]:
    """Name, images a second, their range, part of the limit, GiB and seconds to the first step; or what went wrong."""
    if "error" in row:
        return [row["name"], row["error"], "", "", "", ""]
    span = f"{row['slowest']:.2f}-{row['fastest']:.2f}" if "slowest" in row else ""
    rest = [f"{row[key]:.2f}" if key in row else "" for key in ("of_limit", "peak_gib")]
    return [
        row["name"],
        f"{row['images_per_second']:.2f}",
        span,
        *rest,
        f"{row['first']:.1f}" if "first" in row else "",
    ]


def as_table(lines: Sequence[Facts]) -> str:
    """All that was measured, and below it what was not."""
    head = ["", "images/s", "range", "of the limit", "GiB", "first step after, s"]
    measured = table(head, [as_line(row) for row in lines if "error" not in row])
    return "\n".join([measured, *(f"{row['name']}: {row['error']}" for row in lines if "error" in row)])


def _works(gin: pathlib.Path, setting: Setting, runs: int) -> Iterator[tuple[str, Callable[[], list[Facts]]]]:
    gpu = bool(tf.config.list_physical_devices("GPU"))
    precisions = ("float32", "mixed_bfloat16", *(("mixed_float16",) if gpu else ()))  # that one is slow on a CPU

    def step(leaf: str, precision: str) -> Callable[[], list[Facts]]:
        bindings = [*_NEEDS.get(leaf, ()), *setting.bindings, f"Recipe.precision='{precision}'"]
        own = dataclasses.replace(setting, bindings=bindings)
        named = f"{leaf}, {precision}"
        return lambda: [{**row, "name": named} for row in step_speed.measure([[str(gin / f"{leaf}.gin")]], own, runs)]

    for leaf in _FIRST:
        yield from ((f"{leaf}, {precision}", step(leaf, precision)) for precision in precisions)
    yield "attacks", lambda: _attacks(gin, setting, runs)
    yield "input", lambda: _input(gin, setting, runs)
    for leaf in leaves(gin):
        if leaf not in (*_FIRST, *_ELSEWHERE):
            yield leaf, step(leaf, "float32")


def leaves(gin: pathlib.Path) -> list[str]:
    """The recipes that pipelines.train takes: those that include gin/defaults.gin, or one that does."""
    text = {file.stem: file.read_text(encoding="utf-8") for file in gin.glob("*.gin")}
    found = {name for name in text if "include 'gin/defaults.gin'" in text[name]}
    return sorted(
        name for name in text if name in found or any(f"include 'gin/{one}.gin'" in text[name] for one in found)
    )


def _attacks(gin: pathlib.Path, setting: Setting, runs: int) -> list[Facts]:
    _cli.parse([str(gin / "at.gin")], setting.bindings)
    recipe = _cli.call(Recipe)
    keras.utils.set_random_seed(0)
    network = recipe.network(shape=setting.x.shape[1:], classes=setting.classes)
    threat = recipe.attack.threat
    assert threat is not None  # adversarial training has one
    found = attack_speed.measure(network, setting.x, threat, runs)
    return [{**row, "name": f"evaluation, {row['name']}"} for row in found]


def _input(gin: pathlib.Path, setting: Setting, runs: int) -> list[Facts]:
    _cli.parse([str(gin / "at.gin")], setting.bindings)
    data = input_speed.Setting(_cli.call(Recipe), _cli.call(Data), setting.x, setting.y, setting.classes)
    return [{"name": name, "images_per_second": speed} for name, speed in input_speed.input_speeds(data, runs).items()]
