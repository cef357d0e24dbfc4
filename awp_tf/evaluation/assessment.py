"""The loop: every cascade on every image of a split, in batches, resumable after each."""

import dataclasses
import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.batches import to_pixels
from awp_tf.data.splits import Split
from awp_tf.evaluation.attack_pass import AttackPass, AttackProgress
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.runner import Runner
from awp_tf.evaluation.shard import Shard
from awp_tf.evaluation.state import CLEAN_ERROR, ROBUST, EvaluationState, runs_of
from awp_tf.infra.devices import Devices
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import atomic_write
from awp_tf.losses import misclassified
from awp_tf.networks.classifier import Classifier


@dataclasses.dataclass
class Assessment:
    """The evaluation of one split.

    Attributes:
        classifier: What is attacked.
        split: Images and labels.
        cascades: By what.
        protocol: The ball, the seed and the batch size.
        folder: Where state and adversarial images are kept.
        on_progress: Called every few steps; may raise, and the state is kept.
        devices: Where attacks are carried out.
        shard: Which of the images are attacked here; the others are as if they were classified wrongly.
    """

    classifier: Classifier
    split: Split
    cascades: Mapping[str, Cascade]
    protocol: Protocol
    folder: pathlib.Path
    on_progress: Callable[[], None] = lambda: None
    devices: Devices = Devices()
    shard: Shard = Shard()

    def __post_init__(self) -> None:
        """Makes the folder and prepares the forward pass."""
        self.folder.mkdir(exist_ok=True)
        spec = tf.TensorSpec([None, *self.classifier.shape], self.classifier.dtype)
        predict = lambda x: self.classifier.predict(x)  # noqa: E731, PLW0108  (tf.function takes functions only)
        self._logits = tf.function(predict, input_signature=[spec], autograph=False)

    def run(self) -> EvaluationState:
        """Goes on from the saved state, or starts.

        Raises:
            UserError: The saved state cannot be read, or the network's logits are not finite.
        """
        state = EvaluationState.load(self.state_file) or self._new_state()
        self._clean_pass(state)
        for index, (name, cascade) in enumerate(self.cascades.items()):
            if index == state.cascade:
                self._attack(name, cascade, state)
                state.cascade, state.run, state.position = index + 1, 0, 0
                state.save(self.state_file)
        return state

    def take_over(self, shards: Sequence["Assessment"]) -> None:
        """Puts together what shards, all finished, have found; run() then has nothing left to do."""
        total = self._new_state()
        for shard in shards:
            state, own = EvaluationState.load(shard.state_file), shard.shard.places(len(self.split))
            if state is None:
                raise UserError(f"{shard.folder}: expected a finished shard; delete its folder, and start it anew.")
            total.take_over(state, own)
            for fooled_by, name in zip(state.fooled_by, self.cascades, strict=True):
                images, found = self._open_images(name), shard.adversarial(name)
                for places in self._in_batches(np.flatnonzero(fooled_by > ROBUST)):
                    images[places] = found[places]
                images.flush()
        total.clean, total.cascade = len(self.split), len(self.cascades)
        total.save(self.state_file)

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
        with atomic_write(path) as part:
            shutil.copyfile(self._file(name), part)

    def pixels(self, places: np.ndarray) -> tf.Tensor:
        """The clean images at places, in [0, 1]."""
        return to_pixels(tf.constant(self.split.images[places]), self.classifier.dtype)

    def predictions(self, images: np.ndarray) -> np.ndarray:
        """The classes the network gives to images [M, H, W, C], [M]."""
        return self._logits(tf.constant(images)).numpy().argmax(1)

    def batches(self) -> Iterator[tuple[np.ndarray, tf.Tensor]]:
        """(Places, images in [0, 1]) of the whole shard."""
        for places in self._in_batches(self.shard.places(len(self.split))):
            yield places, self.pixels(places)

    def _in_batches(self, places: np.ndarray) -> Iterator[np.ndarray]:
        for first in range(0, len(places), self.protocol.batch_size):
            yield places[first : first + self.protocol.batch_size]

    def _new_state(self) -> EvaluationState:
        """Nothing is known of any image yet."""
        likeliest = 1 + max(max(run.target for run in runs_of(cascade)) for cascade in self.cascades.values())
        fooled_by = np.full([len(self.cascades), len(self.split)], CLEAN_ERROR, np.int32)
        return EvaluationState(np.zeros([len(self.split), likeliest], np.int32), fooled_by)

    def _clean_pass(self, state: EvaluationState) -> None:
        """Who is classified correctly, and which wrong classes come next."""
        for places, x in self.batches():
            if places[0] < state.clean:
                continue
            start = time.perf_counter()
            logits = self._logits(x)
            if not np.isfinite(logits).all():
                raise UserError(f"{self.classifier.name}: expected finite logits, received NaN or infinity.")
            state.ranking[places] = tf.math.top_k(logits, state.ranking.shape[1]).indices.numpy()
            state.fooled_by[:, places] = np.where(misclassified(logits, self.split.labels[places]), CLEAN_ERROR, ROBUST)
            state.clean = int(places[-1]) + 1
            state.add_seconds("clean", time.perf_counter() - start)
            state.save(self.state_file)
            self.on_progress()

    def _attack(self, name: str, cascade: Cascade, state: EvaluationState) -> None:
        """Attack after attack; each is verified before the next begins, which gets what did not stand."""
        images = self._open_images(name)

        def save() -> None:
            images.flush()  # before the state that counts on it
            state.save(self.state_file)

        for attack, group in itertools.groupby(enumerate(runs_of(cascade)), key=lambda pair: pair[1].attack):
            numbered = list(group)
            if state.run > numbered[-1][0]:
                continue
            search = numbered[0][1].search
            progress = AttackProgress(
                name if name == attack else f"{name}: {attack}",
                images=int(np.sum(state.fooled_by[state.cascade] == ROBUST)),
                total=len(self.shard.places(len(self.split))),
                runs=len(numbered),
                done=self._done(state, [number for number, _ in numbered]),
            )
            now = AttackPass(
                runner=Runner(self.classifier, search, self.devices),
                split=self.split,
                protocol=self.protocol,
                dtype=self.classifier.dtype,
                state=state,
                images=images,
                save=save,
                clock=f"{name}/{attack}",
                progress=progress,
                on_progress=self.on_progress,
                devices=self.devices,
            )
            for number, run in numbered:
                if number >= state.run:
                    state.run = number
                    now.run(run, number - numbered[0][0])
                    state.run, state.position = number + 1, 0
            self._verify(name, state, [number for number, _ in numbered])
            state.save(self.state_file)
            progress.end(int(np.sum(state.fooled_by[state.cascade] == ROBUST)))

    def _done(self, state: EvaluationState, runs: list[int]) -> float:
        """Which part of runs is done where it goes on."""
        part = state.position / max(len(state.pending()), 1)
        return max(state.run - runs[0] + part, 0.0) / len(runs)

    def _verify(self, name: str, state: EvaluationState, runs: list[int]) -> None:
        """Reads back what runs claim: what is not in the ball, in the box and misclassified anew does not count."""
        images, fooled_by = self.adversarial(name), state.fooled_by[state.cascade]
        claimed = np.flatnonzero(np.isin(fooled_by, runs))
        for places in self._in_batches(claimed):
            x, adversarial = self.pixels(places), tf.constant(images[places], self.classifier.dtype)
            size = self.protocol.threat.norm(adversarial - x).numpy()
            # One unit in the last place of a pixel, and of an L2 sum.
            good = size <= self.protocol.threat.epsilon * (1 + 1e-6) + 1e-6
            good &= tf.reduce_all((adversarial >= 0) & (adversarial <= 1), axis=[1, 2, 3]).numpy()
            good &= misclassified(self._logits(adversarial), self.split.labels[places]).numpy()
            fooled_by[places[~good]] = ROBUST
            state.rejected[state.cascade, places[~good]] = True

    def _open_images(self, name: str) -> np.memmap:
        file, shape = self._file(name), (len(self.split), *self.classifier.shape)
        if not file.exists():
            with atomic_write(file) as part:
                np.lib.format.open_memmap(part, "w+", self.classifier.dtype, shape).flush()
        images = np.lib.format.open_memmap(file, "r+")
        self._reserve(file, images)
        return images

    def _reserve(self, file: pathlib.Path, images: np.memmap) -> None:
        """Takes the room of the shard's rows now: if a disk is full when a map is written, the process is killed."""
        if not hasattr(os, "posix_fallocate"):
            return
        size = images[0].nbytes
        with file.open("r+b") as whole:
            for place in self.shard.places(len(self.split)):
                os.posix_fallocate(whole.fileno(), images.offset + int(place) * size, size)

    def _file(self, name: str) -> pathlib.Path:
        return self.folder / f"adversarial-{name}.npy"

    @property
    def state_file(self) -> pathlib.Path:
        """Which run fooled which image."""
        return self.folder / "state.npz"
