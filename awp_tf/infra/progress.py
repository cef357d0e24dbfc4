"""How far long work is, and how long the rest will take: a bar on a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Callable

import tqdm


class Console:
    """Progress of a job of known length, in images."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        """Starts the bar; without a terminal there is none, only lines.

        Args:
            title: What stands in front of the bar.
            total: Images in all.
            done: Images already done when the job goes on from a checkpoint.
        """
        # smoothing=0 is the mean speed of the whole job: fetching and validation make the momentary one jump.
        self._bar = tqdm.tqdm(
            total=total, initial=done, desc=title, unit=" images", unit_scale=True, smoothing=0, disable=None
        )

    def advance(self, images: int) -> None:
        """Moves the bar."""
        self._bar.update(images)

    def note(self, **values: object) -> None:
        """Shows values at the end of the bar."""
        self._bar.set_postfix(values, refresh=False)

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.clear()
        print(text, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Pace:
    """How fast work goes, and how long the rest of it will take; several threads may do it."""

    def __init__(self, total: float, done: float = 0.0) -> None:
        """The work begins, or goes on, now.

        Args:
            total: Units of work, all alike: images, passes, steps.
            done: Units done by an earlier process; they do not count for the pace.
        """
        self._total, self._before, self._here = total, done, 0.0
        self._start = self._last = time.perf_counter()
        self._paused: float | None = None
        self._lock = threading.Lock()

    def advance(self, units: float) -> float:
        """Some work is done; returns units per second since the last call (or resume)."""
        with self._lock:
            now = time.perf_counter()
            seconds, self._last = now - self._last, now
            self._here += units
            return units / max(seconds, 1e-9)

    def advance_to(self, done: float) -> None:
        """As much is done, in all."""
        with self._lock:
            self._here = done - self._before

    def skip(self, units: float) -> None:
        """An earlier process has done some of it."""
        with self._lock:
            self._before += units

    def pause(self) -> None:
        """Something else begins, which is not to count."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """The work goes on."""
        self._last = time.perf_counter()
        self._start += self._last - (self._paused or self._last)
        self._paused = None

    @property
    def done(self) -> float:
        """Units done in all."""
        return self._before + self._here

    @property
    def part(self) -> float:
        """In 0..1."""
        return self.done / self._total

    @property
    def elapsed(self) -> float:
        """Seconds of work here, pauses left out."""
        return (self._paused or time.perf_counter()) - self._start

    @property
    def speed(self) -> float:
        """Units per second."""
        return self._here / max(self.elapsed, 1e-9)

    @property
    def left(self) -> float:
        """Seconds for the rest at the pace so far; 0 while there is none."""
        return max(self._total - self.done, 0.0) / self.speed if self._here > 0 else 0.0


class Heartbeat:
    """A line every 20 seconds for long work, whichever thread does it."""

    def __init__(self, every: float = 20.0) -> None:
        """The next line is due in so many seconds."""
        self._every, self._last = every, time.perf_counter()
        self._lock = threading.Lock()

    def beat(self, text: Callable[[], str]) -> None:
        """Prints a line, unless the last one is fresh."""
        with self._lock:
            now = time.perf_counter()
            if now - self._last < self._every:
                return
            self._last = now
        print(text(), flush=True)
