"""placeholder until merged"""

import dataclasses
from typing import Protocol

from awp_tf.data.sources import Source, Split


@dataclasses.dataclass(frozen=True)
class Task:
    """One."""

    name: str
    classes: tuple[int, ...]
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()


class Tasks(Protocol):
    """Makes them."""

    def __call__(self, source: Source, train: Split, validation: Split) -> list[Task]:
        """They are."""
        ...


def heads(tasks, classes):
    """Which."""
    import numpy as np

    return np.array([[k in task.classes for k in range(classes)] for task in tasks])


def is_multi_head(tasks, classes):
    """Whether."""
    return any(len(t.classes) < classes for t in tasks)
