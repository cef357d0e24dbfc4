"""Timing that is fair on a busy machine, and memory."""

import time
from collections.abc import Callable

import tensorflow as tf

from awp_tf.infra import memory

Step = Callable[[], float]


def interleave(steps: dict[str, Step], runs: int) -> dict[str, list[float]]:
    """Seconds of each step, one after the other, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(runs):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak() -> float:
    """GiB: the most that this process has had, of the fullest GPU where there is one."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return max(float(tf.config.experimental.get_memory_info(gpu.name)["peak"]) for gpu in gpus) / memory.GIB
    return memory.peak() / memory.GIB
