"""The tasks of a network with a head for each: which of its logits belong together."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Sequence

from awp_tf.infra.errors import UserError, at_least

_OURS = "serving_"  # signatures of the whole network begin so


@dataclasses.dataclass(frozen=True)
class Head:
    """The classes of one task.

    Attributes:
        name: Of the task.
        classes: Which logits of the network, in the order of the task's labels.
        class_names: In the order of classes; empty where unknown.
    """

    name: str
    classes: Sequence[int]
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises UserError where classes, their names or the signature's name make no sense."""
        if not self.signature or self.signature.startswith(_OURS):
            raise UserError(
                f"Head.name: expected a name with a letter or digit that does not begin with {_OURS}, received "
                f"{self.name!r}."
            )
        for place in self.classes:
            at_least(f"Head.classes of {self.name}", place, 0)
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise UserError(
                f"Head.classes of {self.name}: expected at least one class and none twice, received "
                f"{list(self.classes)}."
            )
        if self.class_names and len(self.class_names) != len(self.classes):
            raise UserError(
                f"Head.class_names of {self.name}: expected {len(self.classes)} class names or none, received "
                f"{len(self.class_names)}."
            )

    @property
    def signature(self) -> str:
        """The name made valid for nodes of a graph: "task 1" is task_1."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")


def read_heads(path: pathlib.Path) -> list[Head]:
    """The heads of a run's network; none where there is no such file: all tasks share all classes.

    Args:
        path: heads.json of the run's folder.

    Raises:
        UserError: It is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [_head(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:  # UserError is a ValueError
        raise UserError(
            f"{path}: expected a list of heads with name, classes and class_names, received another content ({error})."
        ) from error


def _head(name: object, classes: Iterable[int], class_names: Iterable[object] = ()) -> Head:
    return Head(str(name), tuple(classes), tuple(map(str, class_names)))


def require_heads(what: str, heads: Sequence[Head], classes: int) -> None:
    """Compares heads with a network.

    Args:
        what: The network, for the message.
        heads: Of its tasks.
        classes: How many logits it has.

    Raises:
        UserError: A head has classes that the network lacks, or two have one signature.
    """
    for head in heads:
        if max(head.classes) >= classes:
            raise UserError(
                f"{what}: expected heads with classes below {classes}, received {list(head.classes)} of {head.name}; "
                "give the network of the run that the heads come from."
            )
    names = [head.signature for head in heads]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{what}: expected heads with names of their own, received {', '.join(twice)} twice.")
