"""Timing that is fair on a busy machine."""

import time
from collections.abc import Callable

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
