import dataclasses

import numpy as np
import pytest

from awp_tf.data import digits, only_classes
from awp_tf.infra.errors import UserError


def test_images_keep_their_order_and_classes_are_numbered_anew():
    whole, part = digits(), only_classes(digits, (7, 2, 5))
    for split in ("train", "test"):
        given, taken = getattr(whole, split), getattr(part, split)
        chosen = np.isin(given.labels, (7, 2, 5))
        np.testing.assert_array_equal(taken.images, given.images[chosen])
        np.testing.assert_array_equal(np.array([7, 2, 5])[taken.labels], given.labels[chosen])
    assert (part.classes, part.class_names) == (3, ("7", "2", "5"))
    assert part.name == "digits, classes 7, 2, 5"


def test_validation_images_are_chosen_likewise():
    whole = digits()
    source = dataclasses.replace(whole, validation=whole.test.take(slice(50)))
    part = only_classes(lambda: source, (7, 2))
    assert len(part.validation) == np.isin(source.validation.labels, (7, 2)).sum() > 0
    assert set(part.validation.labels) == {0, 1}


def test_two_halves_are_the_whole():
    low, high = only_classes(digits, range(5)), only_classes(digits, list(range(5, 10)))
    assert len(low.train) + len(high.train) == len(digits().train)
    assert low.identity != high.identity


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 10), r"labels in 0\.\.9 of digits, received 10"),
        ((3,), r"at least 2 labels, for instance \(0, 1, 2\), received \(3,\)"),
        (3, "at least 2 labels"),
        ("01", "at least 2 labels"),
        ((1, 2, 1), r"every label once, received \(1, 2, 1\)"),
        ((0, -1), "expected a whole number >= 0, received -1"),
        ((0, 1.0), r"expected a whole number >= 0, received 1\.0"),
    ],
)
def test_classes_that_make_no_sense_are_one_line(classes, message):
    with pytest.raises(UserError, match=f"only_classes.classes: .*{message}"):
        only_classes(digits, classes)


def test_a_source_that_was_called_already_is_refused():
    with pytest.raises(UserError, match=r"only_classes.source: expected a source such as @tfds_source \(no brackets\)"):
        only_classes("cifar10", (0, 1))
