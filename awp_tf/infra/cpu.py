"""The CPU cores that this process may use, and how work is shared out among them."""

import contextlib
import functools
import os
import pathlib

import tensorflow as tf

_MOST_THREADS = 8


def cores() -> list[int]:
    """Numbers of the cores: those that the process is bound to (taskset, a cluster's queue), where that is known."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@functools.cache
def has_avx512() -> bool:
    """Whether the CPU has AVX-512, without which TensorFlow has other kernels; False where that is not known."""
    with contextlib.suppress(OSError):
        return "avx512f" in pathlib.Path("/proc/cpuinfo").read_text().split()
    return False


def threads() -> int:
    """Threads that work side by side: one for each of at most 8 cores; with a GPU, one."""
    return 1 if tf.config.list_physical_devices("GPU") else min(len(cores()), _MOST_THREADS)


def prepare() -> None:
    """Limits an operation to its thread's share of the cores: two on a core each are faster than two that share both.

    To be called before TensorFlow does anything; later, or with a GPU, it has no effect.
    """
    if not tf.config.list_physical_devices("GPU"):
        share_among(threads())


def share_among(count: int) -> None:
    """Lets an operation use one of so many equal shares of the cores; once TensorFlow runs, it has no effect."""
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(max(len(cores()) // count, 1))
