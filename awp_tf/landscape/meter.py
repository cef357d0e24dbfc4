"""Says what a landscape will cost, then how far it is."""

import time
from collections.abc import Callable, Sequence

from awp_tf.infra import cpu
from awp_tf.infra.progress import Heartbeat, duration
from awp_tf.landscape.passes import Batch, Passes
from awp_tf.landscape.settings import Landscape
from awp_tf.landscape.survey import cost, passes_at


class Meter:
    """Counts in passes of a batch, forward and back."""

    def __init__(self, sizes: Sequence[tuple[int, int]], settings: Landscape, check: Callable[[], None]) -> None:
        """Prints the cost.

        Args:
            sizes: For every network, on how many images the loss is drawn, and how many more there are for the gap.
            settings: What is visited.
            check: Called often; may raise.
        """
        self._check = check
        self._start = time.perf_counter()
        batches = [[-(-images // settings.batch_size) for images in both] for both in sizes]
        self._total = sum(cost(settings, own, other) for own, other in batches)
        self._at_start = passes_at(settings)
        self._heartbeat: Heartbeat | None = None
        points, images = sum(len(curve.coefficients) for curve in settings.curves), sizes[0][0]
        networks = f"{len(sizes)} networks" if len(sizes) > 1 else "1 network"
        print(
            f"{networks} x {points} points x {images:,} images, {settings.attack}: about "
            f"{self._total * min(settings.batch_size, images):,} passes of an image forward and back",
            flush=True,
        )

    def begin(self, passes: Passes, batch: Batch) -> None:
        """Measures a batch of the first network, and says how long all will take."""
        if self._heartbeat is not None:
            return
        passes.height(passes.weights, [batch])  # traces
        start = time.perf_counter()
        passes.height(passes.weights, [batch])
        seconds = (time.perf_counter() - start) / self._at_start * self._total / cpu.workers()
        print(f"about {duration(seconds)} in all", flush=True)
        self._heartbeat = Heartbeat("landscape", self._total)

    def advance(self, passes: int) -> None:
        """So many are made."""
        if self._heartbeat is not None:
            self._heartbeat.advance(passes)
        self._check()

    def skip(self, passes: int) -> None:
        """So many had been made before."""
        if self._heartbeat is not None:
            self._heartbeat.skip(passes)

    def seconds(self) -> float:
        """Since the start."""
        return round(time.perf_counter() - self._start, 1)
