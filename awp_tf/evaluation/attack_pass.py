"""One attack on all images that are still robust: a batch a device, cut in shares that threads search side by side."""

import concurrent.futures
import dataclasses
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from awp_tf.attacks import Examples
from awp_tf.data.batches import to_pixels
from awp_tf.data.splits import Split
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.runner import Outcome, Runner
from awp_tf.evaluation.state import ROBUST, AttackRun, EvaluationState
from awp_tf.infra.devices import Devices
from awp_tf.infra.progress import Heartbeat, Pace, duration
from awp_tf.noise import EVALUATION, make_seed


class AttackProgress:
    """How far one attack on the images of a split is, in lines."""

    def __init__(self, name: str, *, images: int, total: int, runs: int, done: float = 0.0) -> None:
        """The attack begins now.

        Args:
            name: Of the attack.
            images: That it attacks.
            total: Images of the split, wrongly classified ones included.
            runs: Targets times restarts.
            done: Which part of all this an earlier process has done, in 0..1.
        """
        self._name, self._images, self._total, self._runs = name, images, total, runs
        self._pace, self._heartbeat = Pace(1.0, done), Heartbeat()

    def report(self, run: int, part: float, robust: int) -> None:
        """Prints a line, unless the last one is fresh.

        Args:
            run: Which run, from 0.
            part: How much of it is done, in 0..1.
            robust: Images still robust.
        """
        self._pace.advance_to((run + part) / self._runs)
        left = self._pace.left
        self._heartbeat.beat(lambda: self._line(robust, f"at most {duration(left)} left" if left else ""))

    def end(self, robust: int) -> None:
        """Prints the attack's last line."""
        self._pace.advance_to(1.0)
        print(self._line(robust, duration(self._pace.elapsed)), flush=True)

    def _line(self, robust: int, time_text: str) -> str:
        return (
            f"{self._name:<24} {100 * self._pace.part:3.0f} %  {robust:,} of {self._total:,} still robust "
            f"({100 * robust / self._total:.2f} %)  {self._images * self._pace.speed:.3g} images/s  {time_text}"
        )


@dataclasses.dataclass
class AttackPass:
    """Carries out the runs of one attack and notes in the state which run fooled which image.

    Attributes:
        runner: The attack.
        split: Images and labels.
        protocol: Batch size, shares, seed.
        dtype: Of the images.
        state: Says where to go on.
        images: Where adversarial images go, a memmap [N, H, W, C].
        save: Keeps images and state.
        clock: Under which name time is kept.
        progress: Told how far it is.
        on_progress: Called every few steps; may raise.
        devices: Each takes a batch, the same whatever their number.
    """

    runner: Runner
    split: Split
    protocol: Protocol
    dtype: str
    state: EvaluationState
    images: np.ndarray
    save: Callable[[], None]
    clock: str
    progress: AttackProgress
    on_progress: Callable[[], None]
    devices: Devices = Devices()

    def run(self, run: AttackRun, turn: int) -> None:
        """One run over all images that are still robust, from state.position on.

        Args:
            run: The run; its number is state.run.
            turn: Which of the attack's own runs it is, from 0.
        """
        pending = self.state.pending()
        fooled_by = self.state.fooled_by[self.state.cascade]
        while self.state.position < len(pending):
            start = time.perf_counter()
            first = self.state.position
            places = pending[first : first + self.protocol.batch_size * len(self.devices)]

            def report(part: float, left: int, first: int = first, places: np.ndarray = places) -> None:
                robust = int(np.sum(fooled_by == ROBUST)) - len(places) + left
                self.progress.report(turn, (first + part * len(places)) / len(pending), robust)
                self.on_progress()

            for outcome, share in self._side_by_side(run, places, report):
                self.images[share[outcome.fooled]] = outcome.adversarial
                fooled_by[share[outcome.fooled]] = self.state.run
            self.state.position += len(places)
            self.state.add_seconds(self.clock, time.perf_counter() - start)
            self.save()

    def _side_by_side(
        self, run: AttackRun, places: np.ndarray, report: Callable[[float, int], None]
    ) -> list[tuple[Outcome, np.ndarray]]:
        """The outcome of each share, with its places."""
        numbers, shares = zip(*self._shares(places), strict=True)
        parts, left = [0.0] * len(shares), [len(share) for share in shares]
        # Noise depends on the attack's name, the target and the restart, not on what ran before.
        path = (EVALUATION, zlib.crc32(run.attack.encode()), run.target, run.restart)
        key = make_seed(self.protocol.seed, *path).key

        def search(index: int) -> Outcome:
            def on_progress(part: float, still: int) -> None:
                parts[index], left[index] = part, still
                report(sum(parts) / len(parts), sum(left))

            with self.devices.on(numbers[index]):
                examples = self._examples(shares[index], run.target)
                return self.runner(examples, key, run.restart, on_progress, numbers[index])

        with concurrent.futures.ThreadPoolExecutor(self.devices.threads) as pool:
            return list(zip(pool.map(search, range(len(shares))), shares, strict=True))

    def _shares(self, places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(Device, places) of each share of each batch."""
        for number, first in enumerate(range(0, len(places), self.protocol.batch_size)):
            batch = places[first : first + self.protocol.batch_size]
            for share in np.array_split(batch, self.protocol.shares(len(batch))):
                yield number, share

    def _examples(self, places: np.ndarray, target: int) -> Examples:
        return Examples(
            to_pixels(tf.constant(self.split.images[places]), self.dtype),
            tf.constant(self.split.labels[places], tf.int32),
            tf.constant(self.state.ranking[places, target], tf.int32),
            tf.constant(places, tf.int64),
        )
