"""A data set without some of its classes."""

from collections.abc import Callable, Sequence

import numpy as np

from awp_tf.data.sources import Source, source_of
from awp_tf.data.splits import Split
from awp_tf.infra.errors import UserError, at_least


def only_classes(source: Callable[[], Source], classes: Sequence[int]) -> Source:
    """The images of some classes, which are numbered anew: classes[0] becomes 0, classes[1] becomes 1, and so on.

    To pre-train on some classes and fine-tune on others, for instance.

    Args:
        source: Called without arguments, reads the whole data set.
        classes: Which labels of it.

    Raises:
        UserError: source is no function that reads data, or classes are fewer than 2, repeated, or not in it.

    Example:
        >>> from awp_tf.data import digits, only_classes
        >>> low = only_classes(digits, (3, 1))
        >>> low.classes, low.class_names, sorted(set(low.test.labels.tolist()))
        (2, ('3', '1'), [0, 1])
    """
    if not callable(source):
        raise UserError(
            f"only_classes.source: expected a source such as @tfds_source (no brackets), received {source!r}."
        )
    _require_distinct(classes)
    whole = source()
    if max(classes) >= whole.classes:
        raise UserError(
            f"only_classes.classes: expected labels in 0..{whole.classes - 1} of {whole.name}, received {max(classes)}."
        )
    names = [whole.class_names[label] for label in classes] if len(whole.class_names) else []
    name = f"{whole.name}, classes {', '.join(map(str, classes))}"
    splits = [split for split in (whole.train, whole.test, whole.validation) if split is not None]
    train, test, *validation = (of_classes(split, classes, classes) for split in splits)
    return source_of(name, train, test, names, *validation)


def _require_distinct(classes: Sequence[int]) -> None:
    if not isinstance(classes, Sequence) or isinstance(classes, str) or len(classes) < 2:
        raise UserError(
            f"only_classes.classes: expected at least 2 labels, for instance (0, 1, 2), received {classes!r}."
        )
    for label in classes:
        at_least("only_classes.classes", label, 0)
    if len(set(classes)) < len(classes):
        raise UserError(f"only_classes.classes: expected every label once, received {classes!r}.")


def of_classes(split: Split, own: Sequence[int], numbered: Sequence[int]) -> Split:
    """The images of the classes own, in the order they had; labels are places in numbered, which has all of own."""
    kept = split.take(np.isin(split.labels, own))
    place = {label: number for number, label in enumerate(numbered)}
    return Split(kept.images, np.array([place[int(label)] for label in kept.labels], np.int32))
