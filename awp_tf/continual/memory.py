"""Images of earlier tasks, a fair sample of all that has been seen."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.infra.errors import at_least

_ADD, _DRAW, _BASIS = range(3)  # purposes of randomness


class Rows(NamedTuple):
    """Images [N, H, W, C] in [0, 1], their labels among all classes [N], and their tasks [N]."""

    images: np.ndarray
    labels: np.ndarray
    tasks: np.ndarray


class Reservoir(tf.train.experimental.PythonState):
    """A memory in which everything that was ever added is with the same probability (Vitter, 1985, algorithm R).

    What is kept and what is drawn are functions of the seed and of how much was added before, or of the step: a resumed
    run repeats them. A capacity of 0 is no memory: it stays empty.

    Attributes:
        capacity: How many images it holds at most.

    Example:
        >>> import numpy as np
        >>> from awp_tf.continual.memory import Reservoir
        >>> memory = Reservoir(capacity=3, shape=(8, 8, 1))
        >>> memory.add(np.zeros([10, 8, 8, 1]), np.arange(10), task=0)
        >>> len(memory), len(memory.draw(2, step=0).labels)
        (3, 2)
    """

    def __init__(self, capacity: int, shape: Sequence[int], seed: int = 0) -> None:
        """Nothing is in it.

        Args:
            capacity: How many images.
            shape: Of one, (H, W, C).
            seed: What chance depends on.
        """
        at_least("Reservoir.capacity", capacity, 0)
        self.capacity, self._seed = capacity, seed
        self._age = 0  # how many were ever added
        self._kept = Rows(
            np.zeros([capacity, *shape], np.float32), np.zeros([capacity], np.int32), np.zeros([capacity], np.int32)
        )

    def __len__(self) -> int:
        """How many images are in it."""
        return min(self._age, self.capacity)

    def add(self, images: np.ndarray, labels: np.ndarray, task: int) -> None:
        """Takes some of a batch in, which it is to be shown once.

        Args:
            images: In [0, 1], [N, H, W, C].
            labels: Among all classes, [N].
            task: Which one they belong to.
        """
        rng = np.random.default_rng((self._seed, _ADD, self._age))
        for image, label in zip(images, labels, strict=True):
            self._age += 1
            place = self._age - 1 if self._age <= self.capacity else int(rng.integers(self._age))
            if place < self.capacity:
                for kept, value in zip(self._kept, (image, label, task), strict=True):
                    kept[place] = value

    def draw(self, count: int, step: int) -> Rows:
        """At most count of them, without repetition, for a step."""
        return self._draw(count, _DRAW, step)

    def draw_for_basis(self, count: int, task: int) -> Rows:
        """Likewise, for the bases after a task."""
        return self._draw(count, _BASIS, task)

    def _draw(self, count: int, purpose: int, number: int) -> Rows:
        rng = np.random.default_rng((self._seed, purpose, number))
        places = rng.choice(len(self), min(count, len(self)), replace=False) if len(self) else np.zeros([0], int)
        return Rows(*(kept[places] for kept in self._kept))

    def serialize(self) -> bytes:
        """Everything, for a checkpoint."""
        stream = io.BytesIO()
        np.savez(
            stream, allow_pickle=False, age=self._age, **{n: v[: len(self)] for n, v in self._kept._asdict().items()}
        )
        return stream.getvalue()

    def deserialize(self, string_value: bytes) -> None:
        """The inverse of serialize."""
        with np.load(io.BytesIO(string_value), allow_pickle=False) as data:
            self._age = int(data["age"])
            for name, kept in self._kept._asdict().items():
                kept[: len(self)] = data[name]
