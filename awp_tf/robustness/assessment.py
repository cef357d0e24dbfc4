"""The loop: every cascade on every image of a split, in batches, resumable after each."""

import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks import Problem, Search
from awp_tf.attacks.autoattack import Cascade
from awp_tf.attacks.search import misclassified
from awp_tf.checks import UserError
from awp_tf.data.pipeline import to_pixels
from awp_tf.data.sources import Split
from awp_tf.random import EVALUATION, make_seed
from awp_tf.robustness.classifier import Classifier
from awp_tf.robustness.ledger import CLEAN_ERROR, ROBUST, Ledger
from awp_tf.robustness.progress import Progress
from awp_tf.robustness.protocol import Protocol
from awp_tf.robustness.runner import Outcome, Runner


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
class Assessment:
    """The evaluation of one split.

    Attributes:
        classifier: What is attacked.
        split: Images and labels.
        cascades: By what.
        protocol: The ball, the seed and the batch size.
        folder: Where state and adversarial images are kept.
        on_look: Called every few steps; may raise, and the state is kept.
    """

    classifier: Classifier
    split: Split
    cascades: Mapping[str, Cascade]
    protocol: Protocol
    folder: pathlib.Path
    on_look: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Makes the folder and prepares the forward pass."""
        self.folder.mkdir(exist_ok=True)
        spec = tf.TensorSpec([None, *self.classifier.shape], self.classifier.dtype)
        predict = lambda x: self.classifier.predict(x)  # noqa: E731, PLW0108  (tf.function takes functions only)
        self._logits = tf.function(predict, input_signature=[spec], autograph=False)

    def run(self) -> Ledger:
        """Goes on from the saved state, or starts.

        Raises:
            UserError: The saved state cannot be read, or the network's logits are not finite.
        """
        ledger = Ledger.load(self._state)
        if ledger is None:
            ledger = self._started()
            ledger.save(self._state)
        for index, (name, cascade) in enumerate(self.cascades.items()):
            if index == ledger.cascade:
                self._attack(name, cascade, ledger)
                self._verify(name, ledger)
                ledger.cascade, ledger.run, ledger.position = index + 1, 0, 0
                ledger.save(self._state)
        return ledger

    def adversarial(self, name: str) -> np.ndarray:
        """The images that a cascade found, [N, H, W, C] on disk; those of robust images are not set."""
        return np.load(self._file(name), mmap_mode="r")

    def keep(self, name: str, fooled: np.ndarray, path: pathlib.Path) -> None:
        """Copies a cascade's adversarial images to path; images that it did not fool are there as they are."""
        images = np.lib.format.open_memmap(self._file(name), "r+")
        for places, x in self.batches():
            robust = ~fooled[places]
            images[places[robust]] = x.numpy()[robust]
        images.flush()
        part = path.with_name(f".{path.name}.part")
        shutil.copyfile(self._file(name), part)
        os.replace(part, path)

    def pixels(self, places: np.ndarray) -> tf.Tensor:
        """The clean images at places, in [0, 1]."""
        return to_pixels(tf.constant(self.split.images[places]), self.classifier.dtype)

    def predictions(self, images: np.ndarray) -> np.ndarray:
        """The classes the network gives to images [M, H, W, C], [M]."""
        return self._logits(tf.constant(images)).numpy().argmax(1)

    def batches(self) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        """(Places, images in [0, 1]) of the whole split."""
        for first in range(0, len(self.split), self.protocol.batch_size):
            places = np.arange(first, min(first + self.protocol.batch_size, len(self.split)))
            yield places, self.pixels(places)

    def _started(self) -> Ledger:
        """The clean pass: who is classified correctly, and which wrong classes come next."""
        ranking, correct = [], []
        for places, x in self.batches():
            logits = self._logits(x)
            if not np.isfinite(logits).all():
                raise UserError(f"{self.classifier.name}: expected finite logits, received NaN or infinity.")
            ranking.append(tf.math.top_k(logits, min(10, self.classifier.classes)).indices.numpy())
            correct.append(~misclassified(logits, self.split.labels[places]).numpy())
            self.on_look()
        fell = np.where(np.concatenate(correct), ROBUST, CLEAN_ERROR).astype(np.int32)
        return Ledger(np.concatenate(ranking), np.tile(fell, (len(self.cascades), 1)))

    def _attack(self, name: str, cascade: Cascade, ledger: Ledger) -> None:
        runs = runs_of(cascade)
        images = self._opened(name)
        for attack, group in itertools.groupby(enumerate(runs), key=lambda pair: pair[1].attack):
            numbered = list(group)
            if ledger.run > numbered[-1][0]:
                continue
            search = numbered[0][1].search
            runner = Runner(self.classifier.predict, search, self.classifier.shape, self.classifier.dtype)
            title = name if name == attack else f"{name}: {attack}"
            count = int(np.sum(ledger.fell[ledger.cascade] == ROBUST))
            progress = Progress(title, images=count, total=len(self.split), runs=len(numbered))
            for number, run in numbered:
                if number >= ledger.run:
                    ledger.run = number
                    clock = f"{name}/{attack}"
                    self._carry_out(run, number - numbered[0][0], runner, ledger, images, clock, progress)
                    ledger.run, ledger.position = number + 1, 0
            progress.end(int(np.sum(ledger.fell[ledger.cascade] == ROBUST)))

    def _carry_out(
        self,
        run: Run,
        turn: int,
        runner: Runner,
        ledger: Ledger,
        images: np.ndarray,
        clock: str,
        progress: Progress,
    ) -> None:
        """One run over all images that are still robust, from ledger.position on."""
        pending = ledger.pending()
        fell = ledger.fell[ledger.cascade]
        while ledger.position < len(pending):
            start = time.perf_counter()
            places = pending[ledger.position : ledger.position + self.protocol.batch_size]

            for outcome, share in self._side_by_side(run, turn, runner, ledger, places, progress):
                images[share[outcome.fooled]] = outcome.adversarial
                fell[share[outcome.fooled]] = ledger.run
            ledger.position += len(places)
            ledger.seconds[clock] = ledger.seconds.get(clock, 0.0) + time.perf_counter() - start
            images.flush()  # type: ignore[attr-defined]  # a memmap; before the state that counts on it
            ledger.save(self._state)

    def _side_by_side(
        self, run: Run, turn: int, runner: Runner, ledger: Ledger, places: np.ndarray, progress: Progress
    ) -> list[tuple[Outcome, np.ndarray]]:
        """A batch in shares that threads search at the same time, which keeps all cores busy; each with its places."""
        shares = [share for share in np.array_split(places, self.protocol.shares) if len(share)]
        parts, left = [0.0] * len(shares), [len(share) for share in shares]
        others = int(np.sum(ledger.fell[ledger.cascade] == ROBUST)) - len(places)
        pending = len(ledger.pending())

        def search(index: int) -> Outcome:
            def look(part: float, still: int) -> None:
                parts[index], left[index] = part, still
                done = (ledger.position + len(places) * sum(parts) / len(parts)) / pending
                progress.look(turn, done, others + sum(left))
                self.on_look()

            return runner(self._problem(shares[index], run.target, ledger), self._key(run), run.restart, look)

        with concurrent.futures.ThreadPoolExecutor(len(shares)) as pool:
            return list(zip(pool.map(search, range(len(shares))), shares, strict=True))

    def _verify(self, name: str, ledger: Ledger) -> None:
        """Reads back what was saved: whatever is not in the ball, in the box and misclassified does not count."""
        images, fell = self.adversarial(name), ledger.fell[ledger.cascade]
        rejected = 0
        for places, x in self.batches():
            hit = np.flatnonzero(fell[places] >= 0)
            if not len(hit):
                continue
            adversarial = tf.constant(images[places[hit]], x.dtype)
            size = self.protocol.threat.norm(adversarial - tf.gather(x, hit)).numpy()
            # One unit in the last place of a pixel, and of an L2 sum.
            good = size <= self.protocol.threat.epsilon * (1 + 1e-6) + 1e-6
            good &= tf.reduce_all((adversarial >= 0) & (adversarial <= 1), axis=[1, 2, 3]).numpy()
            good &= misclassified(self._logits(adversarial), self.split.labels[places[hit]]).numpy()
            fell[places[hit[~good]]] = ROBUST
            rejected += int(np.sum(~good))
        ledger.rejected[name] = rejected

    def _problem(self, places: np.ndarray, target: int, ledger: Ledger) -> Problem:
        return Problem(
            self.pixels(places),
            tf.constant(self.split.labels[places], tf.int32),
            tf.constant(ledger.ranking[places, target], tf.int32),
            tf.constant(places, tf.int64),
        )

    def _key(self, run: Run) -> tf.Tensor:
        """Noise depends on the attack's name, the target and the restart, not on what ran before."""
        return make_seed(self.protocol.seed, EVALUATION, zlib.crc32(run.attack.encode()), run.target, run.restart).key

    def _opened(self, name: str) -> np.ndarray:
        file, shape = self._file(name), (len(self.split), *self.classifier.shape)
        if not file.exists():
            part = file.with_name(f".{file.name}.part")
            np.lib.format.open_memmap(part, "w+", self.classifier.dtype, shape).flush()
            os.replace(part, file)
        return np.lib.format.open_memmap(file, "r+")

    def _file(self, name: str) -> pathlib.Path:
        return self.folder / f"adversarial-{name}.npy"

    @property
    def _state(self) -> pathlib.Path:
        return self.folder / "state.npz"
