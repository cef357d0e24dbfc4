"""What scale costs a recipe (--scale of tools.benchmark): devices, input, checkpoints, going on late in a run.

Everything that is compared runs in turns in one process, so that a busy machine slows all alike, and a ratio is the
median of the ratios of the turns. Two devices of a machine without GPUs are slices of its CPU, which here share all its
cores: what is measured is the cost of sharing, not a gain (that is --devices=2). Images are random: a step costs the
same on any.
"""

import functools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.data import Batches
from awp_tf.infra import cpu
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import table
from awp_tf.training.records import Records
from awp_tf.training.state import TrainingState
from awp_tf.training.strategy import join, make_strategy
from tools.input_speed import EPOCH, Setting, burst_of, inputs
from tools.shared_step import SharedStep
from tools.timing import Step, interleave

MINUTES = 30.0  # train.checkpoint_minutes
LATE = 50_000  # the step that is gone on from
_WORKER = "--ring_worker"  # of tools.benchmark: one of two processes

Seconds = dict[str, list[float]]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    measured: str
    value: str
    wanted: str = ""
    met: str = ""


def compare(setting: Setting, arguments: Sequence[str], runs: int) -> str:
    """The table.

    Args:
        setting: What is trained.
        arguments: Those of tools.benchmark, for two processes that work together.
        runs: How many turns.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    count = gpus or 2
    several = make_strategy(count)  # before TensorFlow does anything
    cpu.share_among(1)  # one device is to have all cores
    one = setting.step(tf.distribute.get_strategy())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        steps: dict[str, Step] = {"one": one}
        shared = _shared(setting, several) if count > 1 else {}
        for name, step in shared.items():
            steps |= {name: step, f"{name} reductions": step.reduce_alone()}
        steps |= inputs(setting, folder)
        records = _records(folder / "run", one)
        seconds = interleave({**steps, "save": functools.partial(_save, records)}, runs)
        rows += [row for name, step in shared.items() for row in _sharing(name, step, seconds)]
        rows += [] if gpus else _ring(arguments)
        rows += _input_rows(setting, steps, seconds)
        rows += _checkpoint_rows(len(setting.x), seconds)
        rows += [_resume_row(setting, folder / "run", min(runs, 3))]
    speed = len(setting.x) / statistics.median(seconds["one"])
    head = f"one device: {speed:.2f} images/s, {statistics.median(seconds['one']):.3f} s a step of {len(setting.x)}"
    return f"{head}; {runs} turns\n{table(['what', 'measured', '', 'wanted', 'met'], [list(row) for row in rows])}"


def _shared(setting: Setting, strategy: tf.distribute.Strategy) -> dict[str, SharedStep]:
    devices = f"{strategy.num_replicas_in_sync} devices"
    return {devices: setting.step(strategy), f"{devices}, m_sharpness": setting.step(strategy, m_sharpness=True)}


def ratio(seconds: Seconds, name: str, to: str) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def _sharing(name: str, step: SharedStep, seconds: Seconds) -> list[Row]:
    whole, one, alone = (statistics.median(seconds[key]) for key in (name, "one", f"{name} reductions"))
    times = f"{ratio(seconds, name, 'one'):.2f} times"
    return [
        Row(f"{name}, the same batch", f"{whole:.3f} s a step, {one:.3f} s on one", times),
        Row(f"{name}: reductions", _reduced(step, alone), f"{100 * ratio(seconds, f'{name} reductions', name):.2f} %"),
    ]


def _reduced(step: SharedStep, alone: float) -> str:
    large = sum(len(group) >= len(step.trainer.network.trainable_variables) for group in step.reductions)
    return (
        f"{alone:.4f} s for {len(step.reductions)} a step ({large} of all gradients), {step.reduced_bytes / 1e6:.1f} MB"
    )


def _ring(arguments: Sequence[str]) -> list[Row]:
    """Two processes on the loopback device, each with half of the batch."""
    launch = [sys.executable, "-m", "tools.launch_local", "--workers=2", "--", "-m", "tools.benchmark"]
    done = subprocess.run([*launch, *arguments, _WORKER], capture_output=True, text=True, check=False)
    said = [line.removeprefix("[0] ") for line in done.stdout.splitlines() if line.startswith('[0] [["2 processes')]
    if done.returncode or not said:
        raise UserError(f"--scale: two processes ended with exit code {done.returncode}: {done.stdout[-300:]}")
    return [Row(*row) for row in json.loads(said[-1])]


def ring_rows(setting: Setting, runs: int) -> str:
    """What one of two processes (TF_CONFIG) says of its reductions: rows of the table, as JSON."""
    strategy, _ = join(1, None, "tools.benchmark", collectives="ring")
    rows = []
    for name, m_sharpness in (("2 processes, ring", False), ("2 processes, ring, m_sharpness", True)):
        step = setting.step(strategy, m_sharpness)
        seconds = interleave({"step": step, "alone": step.reduce_alone()}, runs)
        whole, alone = (statistics.median(seconds[key]) for key in ("step", "alone"))
        share = f"{100 * ratio(seconds, 'alone', 'step'):.2f} %"
        rows.append(Row(f"{name}: reductions", f"{whole:.3f} s a step; {_reduced(step, alone)}", share))
    return json.dumps(rows)


def _input_rows(setting: Setting, steps: dict[str, Step], seconds: Seconds) -> list[Row]:
    rows, batches = [], burst_of(len(setting.x))
    for name in (name for name in steps if name.startswith("input")):
        speed = batches * len(setting.x) / statistics.median(seconds[name])
        times = batches / ratio(seconds, name, "one")
        rows.append(Row(name, f"{speed:.0f} images/s", f"{times:.1f} times the step's", ">= 5", _met(times >= 5)))
    return rows


def _records(folder: pathlib.Path, step: SharedStep) -> Records:
    return Records(folder, step.trainer, TrainingState(step=LATE), MINUTES)


def _save(records: Records) -> float:
    records.save()
    return 0.0


def _checkpoint_rows(batch: int, seconds: Seconds) -> list[Row]:
    save = statistics.median(seconds["save"])
    epoch = statistics.median(seconds["one"]) * EPOCH / batch
    spans = {f"{MINUTES:.0f} minutes": 60 * MINUTES, f"an epoch of {EPOCH:,} images ({epoch:.0f} s)": epoch}
    shares = {span: 100 * save / length for span, length in spans.items()}
    return [
        Row(f"checkpoint, to {span}", f"{save:.3f} s", f"{percent:.4f} %", "< 1 %", _met(percent < 1))
        for span, percent in shares.items()
    ]


def _resume_row(setting: Setting, folder: pathlib.Path, runs: int) -> Row:
    """From no trainer to the end of the first step: network, checkpoint, data, trace, step."""
    batches = setting.batches(np.zeros((setting.count, *setting.x.shape[1:]), np.uint8))
    places = {"fresh": folder.parent / "none", "resumed": folder}
    steps: dict[str, Step] = {
        name: functools.partial(_first_step, setting, batches, place) for name, place in places.items()
    }
    seconds = interleave(steps, runs)
    fresh, resumed = (statistics.median(seconds[name]) for name in steps)
    later = statistics.median(b - a for a, b in zip(seconds["fresh"], seconds["resumed"], strict=True))
    measured = f"{resumed:.2f} s, {fresh:.2f} s for a fresh run"
    return Row(f"first step, going on at {LATE:,}", measured, f"{later:+.2f} s", "< 5 s", _met(later < 5))


def _first_step(setting: Setting, batches: Batches, folder: pathlib.Path) -> float:
    per_epoch, shape = batches.steps_per_epoch, setting.x.shape[1:]
    trainer = setting.recipe.trainer(shape, setting.classes, epochs=1, steps_per_epoch=per_epoch, seed=0)
    progress = TrainingState()
    Records(folder, trainer, progress, MINUTES).restore()
    data = batches.shares(progress.step, LATE + per_epoch)
    step = tf.function(trainer.train_step, input_signature=[data.element_spec], autograph=False)
    return float(step(next(iter(data)))["loss"])


def _met(holds: bool) -> str:
    return "yes" if holds else "NO"
