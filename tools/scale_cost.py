"""What scale costs a recipe (--scale of tools.benchmark): devices, input, checkpoints, going on late in a run.

Everything that is compared runs in turns in one process, so that a busy machine slows all alike, and a ratio is the
median of the ratios of the turns. Two devices of a machine without GPUs are slices of its CPU, which share its cores:
what is measured is the cost of sharing, not a gain. Images are random: a step costs the same on any.
"""

import dataclasses
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

from awp_tf.data import Batches, Data, Split, folders
from awp_tf.data.stored import Decoded, Images
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import table
from awp_tf.training.recipe import Recipe
from awp_tf.training.records import Records
from awp_tf.training.state import TrainingState
from awp_tf.training.strategy import join, make_strategy
from tools.shared_step import SharedStep
from tools.timing import Step, interleave

MINUTES = 30.0  # train.checkpoint_minutes
EPOCH = 50_000  # images, of CIFAR-10
LATE = 50_000  # the step that is gone on from
_BYTES, _FILES, _BURST = 2**28, 1024, 4096  # of images in memory; files; images that the input is timed on
_WORKER = "--ring_worker"  # of tools.benchmark: one of two processes

Seconds = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained: recipe, data's settings, images [B, H, W, C] in [0, 1], labels [B], their number."""

    recipe: Recipe
    data: Data
    x: np.ndarray
    y: np.ndarray
    classes: int

    @property
    def count(self) -> int:
        """Images of the data: an epoch's, or as many as are held in memory here."""
        return max(len(self.x), min(EPOCH, _BYTES // int(np.prod(self.x.shape[1:]))))

    def step(self, strategy: tf.distribute.Strategy, m_sharpness: bool = False) -> SharedStep:
        """The training step on these images."""
        recipe = dataclasses.replace(self.recipe, m_sharpness=m_sharpness)
        return SharedStep(recipe, strategy, self.x, self.y, self.classes)

    def batches(self, images: Images) -> Batches:
        """Batches of other images, as many at once, with the augmentation of the data."""
        data, split = self.data, Split(images, np.resize(self.y, len(images)))
        return Batches(split, len(self.x), data.augment, 0, 1, self.recipe.dtype, data.mix, self.classes)


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
    one = setting.step(tf.distribute.get_strategy())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        steps: dict[str, Step] = {"one": one}
        shared = _shared(setting, several) if count > 1 else {}
        for name, step in shared.items():
            steps |= {name: step, f"{name} reductions": step.reduce_alone()}
        steps |= _inputs(setting, folder)
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


def _inputs(setting: Setting, folder: pathlib.Path) -> dict[str, Step]:
    """Reads so many images, of arrays and of files."""
    shape, count = setting.x.shape[1:], setting.count
    images = np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8)
    found: dict[str, Images] = {"input, in memory": images}
    if shape[0] == shape[1] and shape[2] in (1, 3):
        found["input, image files in place"] = _files(images[: max(len(setting.x), _FILES)], folder / "images")
    return {name: _burst(setting.batches(split)) for name, split in found.items()}


def input_speeds(setting: Setting, runs: int) -> dict[str, float]:
    """Images a second that the input alone delivers, of arrays and of files."""
    images = _burst_of(len(setting.x)) * len(setting.x)
    with tempfile.TemporaryDirectory() as place:
        seconds = interleave(_inputs(setting, pathlib.Path(place)), runs)
    return {name: images / statistics.median(each) for name, each in seconds.items()}


def _files(images: np.ndarray, folder: pathlib.Path) -> Decoded:
    folder.mkdir()
    files = [folder / f"{place}.png" for place in range(len(images))]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(tf.io.encode_png(image).numpy())
    _, size, _, channels = images.shape
    return Decoded(files, lambda file: folders.decode(file, size, channels), images.shape[1:], 0, str)


def _burst(batches: Batches) -> Step:
    """Reads _BURST images; the stream goes on from call to call."""
    stream = iter(batches.shares(0, 10**9))
    next(stream)

    def read() -> float:
        for _ in range(_burst_of(batches.batch_size)):
            x, _ = next(stream)
        return float(x[0, 0, 0, 0])

    return read


def _burst_of(batch: int) -> int:
    """Batches; many more than the pipeline has ready."""
    return max(20, _BURST // batch)


def _input_rows(setting: Setting, steps: dict[str, Step], seconds: Seconds) -> list[Row]:
    rows, batches = [], _burst_of(len(setting.x))
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
