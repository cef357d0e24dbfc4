"""What a run prints: a bar on a terminal, one line an epoch everywhere."""

import threading
import time
from collections.abc import Mapping

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


def epoch_line(epoch: int, epochs: int, values: Mapping[str, float], *, remaining: float, best: bool) -> str:
    """One epoch in one line; accuracies, where they were measured, are clean / robust."""
    measured = "".join(
        f"{part} {100 * values[f'{part}/clean']:.1f}/{100 * values[f'{part}/robust']:.1f} %  "
        for part in ("train", "validation")
        if f"{part}/clean" in values
    )
    return (
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}  loss {values['train/loss']:.4f}  {measured}"
        f"{values['speed/images_per_second']:.0f} images/s  {duration(remaining)} left{'  best' if best else ''}"
    )


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


class Heartbeat:
    """A line every 20 seconds for long work, whichever thread does it: how much is done, how much time is left."""

    def __init__(self, title: str, total: int, every: float = 20.0) -> None:
        """The work begins now.

        Args:
            title: What stands in front.
            total: Units of work, all alike.
            every: Seconds between two lines.
        """
        self._title, self._total, self._every = title, total, every
        self._done, self._skipped = 0, 0
        self._start = self._last = time.perf_counter()
        self._lock = threading.Lock()

    def skip(self, units: int) -> None:
        """Units that were done before; they do not count for the pace."""
        with self._lock:
            self._skipped += units

    def advance(self, units: int = 1) -> None:
        """Some work is done."""
        with self._lock:
            self._done += units
            now = time.perf_counter()
            if now - self._last < self._every:
                return
            self._last = now
            left = self._total - self._done - self._skipped
            part = 100 * (1 - left / self._total)
            print(f"{self._title} {part:3.0f} %  {duration((now - self._start) * left / self._done)} left", flush=True)


class Clock:
    """Images per second of training, and how long the rest of a run will take."""

    def __init__(self) -> None:
        """Starts."""
        self._start = self._last = time.perf_counter()
        self._images, self._seconds = 0, 0.0

    def lap(self, images: int) -> float:
        """Images per second since the last lap or resume."""
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        self._images, self._seconds = self._images + images, self._seconds + elapsed
        return images / elapsed

    def pause(self) -> None:
        """Something other than training begins."""
        self._seconds += time.perf_counter() - self._last

    def resume(self) -> None:
        """Training goes on."""
        self._last = time.perf_counter()

    def training(self) -> float:
        """Images per second while training."""
        return self._images / max(self._seconds, 1e-9)

    def remaining(self, images: int) -> float:
        """Seconds for images more at the pace so far, validation included; 0 while there is no pace."""
        return images * (time.perf_counter() - self._start) / self._images if self._images else 0.0
