"""The largest batch whose training step fits into memory (--find_batch_size of tools.benchmark).

Each try is a process of its own, so that one that takes too much ends that process only. What counts is, on a GPU, the
peak of its allocator; on a CPU the most that the process has had resident (VmHWM of Linux): the address space, which
RLIMIT_AS would limit, is many times as large with TensorFlow. The process is watched, and ended as soon as it has more
than the limit, before the machine has to end one.
"""

import dataclasses
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from awp_tf.infra import memory
from awp_tf.infra.errors import UserError, positive
from awp_tf.infra.memory import GIB, machine
from awp_tf.training.recipe import Recipe
from awp_tf.training.strategy import make_strategy
from tools.shared_step import SharedStep
from tools.timing import interleave, peak

MOST = 2**15  # larger ones are not tried
_FLAG = "--one_batch"  # of tools.benchmark: the process of a try


@dataclasses.dataclass(frozen=True)
class Try:
    """What came of a batch size.

    Attributes:
        batch: Images of the global batch.
        fits: Whether its step stayed within the limit.
        peak: GiB, of what there was until the end.
        speed: Images per second, 0 where it does not fit.
    """

    batch: int
    fits: bool
    peak: float
    speed: float = 0.0

    def __str__(self) -> str:
        """A line of the report."""
        if self.fits:
            return f"batch {self.batch}: fits, peak {self.peak:.2f} GiB, {self.speed:.2f} images/s"
        return f"batch {self.batch}: does not fit, {self.peak:.2f} GiB and more"


def search(fits: Callable[[int], bool], devices: int, most: int = MOST) -> int:
    """The largest batch that fits, or 0: doubles, then bisects.

    Args:
        fits: Tries a batch size.
        devices: All sizes are multiples of it, and of 8 for each device where so many fit.
        most: None above is tried.

    Returns:
        To within 8 images a device, and above 128 to within a sixteenth.

    Example:
        >>> search(lambda batch: batch <= 100, devices=1)
        96
    """
    unit = 8 * devices
    good, bad = 0, unit
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    if not good:
        return next((few for few in (4 * devices, 2 * devices, devices) if fits(few)), 0)
    if bad > most:
        return good
    while bad - good > max(unit, good // 16):
        middle = (good + bad) // 2 // unit * unit
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def find(arguments: Sequence[str], recipe: Recipe, own: int, devices: int, gib: float | None) -> None:
    """Prints each try, the largest and the fastest batch, and how the recipe's own can be had.

    Args:
        arguments: Those of tools.benchmark, for the processes that try.
        recipe: How to train.
        own: Its batch size.
        devices: How many share a batch.
        gib: The limit; None is all there is.

    Raises:
        UserError: Not even one image a device fits, or a step fails for another reason.
    """
    if gib is not None:
        positive("--memory_gib", gib)
    limit = gib or _room()
    print("limit: " + (f"{limit:.2f} GiB" if limit < float("inf") else "the memory of the GPU"), flush=True)
    tries: dict[int, Try] = {}

    def fits(batch: int) -> bool:
        tries[batch] = attempt(arguments, batch, limit)
        print(tries[batch], flush=True)
        return tries[batch].fits

    largest = search(fits, devices)
    if not largest:
        raise UserError(
            f"--find_batch_size: expected room for a step of {devices} image(s), which takes {tries[devices].peak:.2f} "
            f"GiB and more, received {limit:.2f} GiB; choose a smaller network or recipe."
        )
    fastest = max(tries.values(), key=lambda one: one.speed)
    bounded = f" (larger ones than {MOST} were not tried)" if 2 * largest > MOST else ""
    print(f"largest batch that fits: {largest}{bounded}")
    print(f"fastest: {fastest.batch}, {fastest.speed:.2f} images/s")
    print(_how_to_have(own, largest, recipe, devices, lambda extra: attempt([*arguments, *extra], own, limit)))


def attempt(arguments: Sequence[str], batch: int, limit: float) -> Try:
    """Takes steps of a batch in a process of its own, which is ended where it has more than limit GiB.

    Raises:
        UserError: It ended for another reason than memory.
    """
    watched = float("inf") if tf.config.list_physical_devices("GPU") else limit
    code, said, complaint, seen = _run(
        [sys.executable, "-m", "tools.benchmark", *arguments, f"{_FLAG}={batch}"], watched
    )
    if code == -signal.SIGKILL:  # by us, or by the machine
        return Try(batch, False, seen)
    lines = said.splitlines()
    if code or not lines:
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
        raise UserError(f"batch {batch}: its process ended with exit code {code}: {last}")
    found = json.loads(lines[-1])
    return Try(batch, found["fits"] and found["peak"] <= limit, found["peak"], found["speed"])


def measure(recipe: Recipe, x: np.ndarray, y: np.ndarray, classes: int, devices: int | None, runs: int) -> str:
    """What the process of a try says of its batch, as JSON; see Try."""
    strategy = make_strategy(devices)
    try:
        step = SharedStep(recipe, strategy, x, y, classes)
        step()
        seconds = statistics.median(interleave({"": step}, runs)[""])
    except tf.errors.OpError as error:
        if not _lacks_memory(error):
            raise
        return json.dumps({"fits": False, "peak": peak(), "speed": 0.0})
    return json.dumps({"fits": True, "peak": peak(), "speed": len(x) / seconds})


def _lacks_memory(error: tf.errors.OpError) -> bool:
    """Whether a step failed for want of memory; cuDNN says in words of its own that it found none to try itself in."""
    return isinstance(error, tf.errors.ResourceExhaustedError) or bool(
        re.search(r"No algorithm worked|CUDNN_STATUS_ALLOC_FAILED", str(error))
    )


def _room() -> float:
    """GiB that a step may take: on a CPU what the machine or the container has, less what others use now."""
    if tf.config.list_physical_devices("GPU"):
        return float("inf")
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    return min(machine(), int(found[1]) * 1024 if found else machine()) / GIB


def _read(file: str) -> str:
    path = pathlib.Path(file)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _run(command: Sequence[str], limit: float) -> tuple[int, str, str, float]:
    """(Exit code, output, errors, the most GiB seen) of a process that is killed when it has more than limit."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaint:
        process = subprocess.Popen(command, stdout=said, stderr=complaint)
        most = 0.0
        try:
            while process.poll() is None:
                most = max(most, memory.peak(process.pid) / GIB)
                if most > limit:
                    process.kill()
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        complaint.seek(0)
        return process.returncode, said.read(), complaint.read(), most


def _how_to_have(own: int, largest: int, recipe: Recipe, devices: int, trial: Callable[[list[str]], Any]) -> str:
    """A line on the batch size of the recipe; what it advises has been tried."""
    if own <= largest:
        return f"BATCH_SIZE={own} of the recipe fits"
    if recipe.replays > 1:
        return f"BATCH_SIZE={own} of the recipe does not fit; take BATCH_SIZE={largest} (with replays, no accumulation)"
    parts = -(-own * recipe.accumulation // largest)
    while parts <= own // devices:
        found = trial([f"--gin_bindings=Recipe.accumulation={parts}"])
        print(f"accumulation {parts}: {found}", flush=True)
        if found.fits:
            return f"BATCH_SIZE={own} of the recipe: take Recipe.accumulation={parts}"
        parts += -(-parts // 4)
    return f"BATCH_SIZE={own} of the recipe does not fit, in parts of one image either"
