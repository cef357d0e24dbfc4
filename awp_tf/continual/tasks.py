"""Tasks that follow one another: permuted pixels, or a data set's classes cut into parts."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from awp_tf.data.sources import Source
from awp_tf.data.splits import Split
from awp_tf.data.subsets import of_classes
from awp_tf.infra.errors import UserError, at_least, one_of, whole_seed


@dataclasses.dataclass(frozen=True)
class Task:
    """One of them.

    Attributes:
        name: In messages and figures.
        classes: Which logits of the network are its own, in the order of its labels.
        train: Training images; labels are 0..len(classes)-1, places in classes, as in the other splits.
        validation: For an early stop.
        test: For the report.
        class_names: In the order of classes; empty where unknown.
    """

    name: str
    classes: tuple[int, ...]
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()


class Tasks(Protocol):
    """Makes tasks of a data set."""

    def __call__(self, source: Source, train: Split, validation: Split) -> list[Task]:
        """The tasks in the order in which they are learned.

        Args:
            source: The data set.
            train: What of its training images is trained on.
            validation: What is held out.

        Raises:
            UserError: The data set cannot be cut so.
        """
        ...


@dataclasses.dataclass(frozen=True)
class PermutedPixels:
    """The same images with their pixels in another order in each task; the first has them as they are.

    All tasks share one head (Goodfellow et al., 2013; as in GEM, Lopez-Paz & Ranzato, NeurIPS 2017).

    Attributes:
        count: How many tasks.
        samples: How many training images each task draws for itself; None is all.
        seed: What orders and draws depend on.

    Example:
        >>> from awp_tf.continual.tasks import PermutedPixels
        >>> from awp_tf.data import digits
        >>> source = digits()
        >>> first, second = PermutedPixels(2, samples=500)(source, source.train, source.test)
        >>> second.name, len(second.train), second.train.images.shape[1:]
        ('task 2', 500, (8, 8, 1))
    """

    count: int = 5
    samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("PermutedPixels.count", self.count, 2)
        whole_seed("PermutedPixels.seed", self.seed)
        _require_samples("PermutedPixels", self.samples)

    def __call__(self, source: Source, train: Split, validation: Split) -> list[Task]:
        """See Tasks."""
        classes, names = tuple(range(source.classes)), tuple(source.class_names)
        tasks = []
        for task in range(self.count):
            splits = (_sample(train, self.samples, self.seed, task, "PermutedPixels"), validation, source.test)
            _require_images("PermutedPixels", task, classes, splits)
            moved = [_permute(split, self.seed, task) for split in splits]
            tasks.append(Task(f"task {task + 1}", classes, moved[0], moved[1], moved[2], names))
        return tasks


@dataclasses.dataclass(frozen=True)
class SplitClasses:
    """The classes of a data set cut into tasks of equally many.

    Attributes:
        count: How many tasks.
        order: Of the classes: every label once; "as numbered"; or "random", by the seed.
        multi_head: Each task has its own classes to choose among, in training and in testing (task-incremental); False:
            one head over all classes, those of later tasks included (class-incremental).
        samples: How many training images each task draws; None is all.
        seed: What draws depend on.

    Example:
        >>> from awp_tf.continual.tasks import SplitClasses
        >>> from awp_tf.data import digits
        >>> source = digits()
        >>> [task.classes for task in SplitClasses(5)(source, source.train, source.test)]
        [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    """

    count: int = 5
    order: Sequence[int] | str = "as numbered"
    multi_head: bool = True
    samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("SplitClasses.count", self.count, 2)
        whole_seed("SplitClasses.seed", self.seed)
        _require_samples("SplitClasses", self.samples)
        if not isinstance(self.order, Sequence):
            raise UserError(
                "SplitClasses.order: expected every label once, for instance (3, 0, 2, 1), 'as numbered' or 'random', "
                f"received {self.order!r}."
            )
        if isinstance(self.order, str):
            one_of("SplitClasses.order", self.order, ("as numbered", "random"))

    def __call__(self, source: Source, train: Split, validation: Split) -> list[Task]:
        """See Tasks."""
        size = self._classes_of_each(source)
        order = self._order(source.classes)
        return [self._task(source, train, validation, k, order[k * size : (k + 1) * size]) for k in range(self.count)]

    def _task(self, source: Source, train: Split, validation: Split, number: int, own: Sequence[int]) -> Task:
        classes = tuple(own) if self.multi_head else tuple(range(source.classes))
        parts = [of_classes(split, own, classes) for split in (train, validation, source.test)]
        _require_images("SplitClasses", number, own, parts)
        sampled = _sample(parts[0], self.samples, self.seed, number, "SplitClasses")
        names = tuple(source.class_names[k] for k in classes) if len(source.class_names) else ()
        return Task(f"task {number + 1}", classes, sampled, parts[1], parts[2], names)

    def _classes_of_each(self, source: Source) -> int:
        size, rest = divmod(source.classes, self.count)
        if rest or size < (2 if self.multi_head else 1):
            fits = [n for n in range(2, source.classes // 2 + 1) if source.classes % n == 0]
            raise UserError(
                f"SplitClasses.count: expected a number of tasks that share the {source.classes} classes of "
                f"{source.name} evenly, at least 2 each ({', '.join(map(str, fits))}), received {self.count}."
            )
        return size

    def _order(self, classes: int) -> list[int]:
        if self.order == "random":
            return [int(k) for k in np.random.default_rng((self.seed, 0)).permutation(classes)]
        order = list(range(classes)) if isinstance(self.order, str) else list(self.order)
        whole = all(isinstance(label, int) for label in order)  # 1.0 and "1" would be found later, or not at all
        if not whole or sorted(order) != list(range(classes)):
            raise UserError(
                f"SplitClasses.order: expected each of the labels 0..{classes - 1} once, received {self.order!r}."
            )
        return order


def heads(tasks: Sequence[Task], classes: int) -> np.ndarray:
    """Which logits belong to each task, bool [T, K]."""
    return np.array([np.isin(np.arange(classes), task.classes) for task in tasks])


def is_multi_head(tasks: Sequence[Task], classes: int) -> bool:
    """Whether any task has only some of the classes."""
    return not bool(heads(tasks, classes).all())


def _require_images(name: str, task: int, classes: Sequence[int], splits: Sequence[Split]) -> None:
    for what, split in zip(("training", "validation", "test"), splits, strict=True):
        if not len(split):
            raise UserError(
                f"{name}: expected {what} images in task {task + 1} (classes {', '.join(map(str, classes))}), received "
                "none; hold out more (Data.validation), or cut into fewer tasks."
            )


def _require_samples(name: str, samples: int | None) -> None:
    """Before the data are read, which may take a while."""
    if samples is not None:
        at_least(f"{name}.samples", samples, 1)


def _permute(split: Split, seed: int, task: int) -> Split:
    """The pixels of each image in the order of a task, their channels together."""
    if not task:
        return split
    count, height, width, channels = split.images.shape
    order = np.random.default_rng((seed, task)).permutation(height * width)
    flat = np.asarray(split.images).reshape(count, height * width, channels)
    return Split(flat[:, order].reshape(split.images.shape), split.labels)


def _sample(split: Split, count: int | None, seed: int, task: int, name: str) -> Split:
    if count is None:
        return split
    if count > len(split):
        raise UserError(
            f"{name}.samples: expected at most the {len(split)} training images of task {task + 1}, received {count}."
        )
    chosen = np.random.default_rng((seed, task, 1)).permutation(len(split))[:count]
    return split.take(np.sort(chosen))
