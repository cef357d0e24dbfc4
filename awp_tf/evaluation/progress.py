"""Lines that say how far an attack is."""

import time

from awp_tf.infra.progress import duration

_EVERY = 20.0  # seconds between two lines of the same attack


class Progress:
    """One attack on the images of a split."""

    def __init__(self, name: str, *, images: int, total: int, runs: int, done: float = 0.0) -> None:
        """The attack begins now.

        Args:
            name: Of the attack.
            images: That it attacks.
            total: Images of the split, wrongly classified ones included.
            runs: Targets times restarts.
            done: Which part of all this an earlier session has done, in 0..1.
        """
        self._name, self._images, self._total, self._runs, self._before = name, images, total, runs, done
        self._start = self._last = time.perf_counter()

    def look(self, run: int, part: float, robust: int) -> None:
        """Prints a line, unless the last one is fresh.

        Args:
            run: Which run, from 0.
            part: How much of it is done, in 0..1.
            robust: Images still robust.
        """
        now = time.perf_counter()
        if now - self._last < _EVERY:
            return
        self._last = now
        done = (run + part) / self._runs
        elapsed = now - self._start
        here = done - self._before
        left = f"at most {duration(elapsed * (1 - done) / here)} left" if here > 0 else ""
        self._print(robust, elapsed, done, left)

    def end(self, robust: int) -> None:
        """Prints the attack's last line."""
        elapsed = time.perf_counter() - self._start
        self._print(robust, elapsed, 1.0, duration(elapsed))

    def _print(self, robust: int, elapsed: float, done: float, time_text: str) -> None:
        speed = self._images * (done - self._before) / max(elapsed, 1e-9)
        print(
            f"{self._name:<24} {100 * done:3.0f} %  {robust:,} of {self._total:,} still robust "
            f"({100 * robust / self._total:.2f} %)  {speed:.3g} images/s  {time_text}",
            flush=True,
        )
