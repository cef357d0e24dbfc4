"""One attack on all images that are still robust: batches, cut in shares that threads search side by side."""

import concurrent.futures
import dataclasses
import itertools
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks import Problem, Search
from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.batches import to_pixels
from awp_tf.data.sources import Split
from awp_tf.evaluation.progress import Progress
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.runner import Outcome, Runner
from awp_tf.evaluation.state import ROBUST, Ledger
from awp_tf.infra import cpu
from awp_tf.noise import EVALUATION, make_seed


class Run(NamedTuple):
    """One pass of a search: towards the class of one rank, with one restart."""

    attack: str
    search: Search
    target: int
    restart: int


def runs_of(cascade: Cascade) -> list[Run]:
    """What a cascade does, in order: attacks, then target ranks (1 is the likeliest wrong class), then restarts."""
    return [
        Run(attack, search, target, restart)
        for attack, search in cascade.searches.items()
        for target, restart in itertools.product(range(1, max(search.targets, 1) + 1), range(search.restarts))
    ]


@dataclasses.dataclass
class AttackPass:
    """Carries out the runs of one attack and enters in the ledger who fell.

    Attributes:
        runner: The attack.
        split: Images and labels.
        protocol: Batch size, shares, seed.
        dtype: Of the images.
        ledger: Says where to go on.
        images: Where adversarial images go, a memmap [N, H, W, C].
        save: Keeps images and ledger.
        clock: Under which name time is kept.
        progress: Told how far it is.
        on_look: Called every few steps; may raise.
    """

    runner: Runner
    split: Split
    protocol: Protocol
    dtype: str
    ledger: Ledger
    images: np.ndarray
    save: Callable[[], None]
    clock: str
    progress: Progress
    on_look: Callable[[], None]

    def carry_out(self, run: Run, turn: int) -> None:
        """One run over all images that are still robust, from ledger.position on.

        Args:
            run: The run; its number is ledger.run.
            turn: Which of the attack's own runs it is, from 0.
        """
        pending = self.ledger.pending()
        fell = self.ledger.fell[self.ledger.cascade]
        while self.ledger.position < len(pending):
            start = time.perf_counter()
            first = self.ledger.position
            places = pending[first : first + self.protocol.batch_size]

            def look(part: float, left: int, first: int = first, places: np.ndarray = places) -> None:
                robust = int(np.sum(fell == ROBUST)) - len(places) + left
                self.progress.look(turn, (first + part * len(places)) / len(pending), robust)
                self.on_look()

            for outcome, share in self._side_by_side(run, places, look):
                self.images[share[outcome.fooled]] = outcome.adversarial
                fell[share[outcome.fooled]] = self.ledger.run
            self.ledger.position += len(places)
            self.ledger.spend(self.clock, time.perf_counter() - start)
            self.save()

    def _side_by_side(
        self, run: Run, places: np.ndarray, look: Callable[[float, int], None]
    ) -> list[tuple[Outcome, np.ndarray]]:
        """The outcome of each share, with its places."""
        shares = np.array_split(places, self.protocol.shares(len(places)))
        parts, left = [0.0] * len(shares), [len(share) for share in shares]
        # Noise depends on the attack's name, the target and the restart, not on what ran before.
        path = (EVALUATION, zlib.crc32(run.attack.encode()), run.target, run.restart)
        key = make_seed(self.protocol.seed, *path).key

        def search(index: int) -> Outcome:
            def on_look(part: float, still: int) -> None:
                parts[index], left[index] = part, still
                look(sum(parts) / len(parts), sum(left))

            return self.runner(self._problem(shares[index], run.target), key, run.restart, on_look)

        with concurrent.futures.ThreadPoolExecutor(cpu.workers()) as pool:
            return list(zip(pool.map(search, range(len(shares))), shares, strict=True))

    def _problem(self, places: np.ndarray, target: int) -> Problem:
        return Problem(
            to_pixels(tf.constant(self.split.images[places]), self.dtype),
            tf.constant(self.split.labels[places], tf.int32),
            tf.constant(self.ledger.ranking[places, target], tf.int32),
            tf.constant(places, tf.int64),
        )
