import pathlib
import re

import numpy as np
import pytest
from helpers import tiny_split

from awp_tf.continual.tasks import PermutedPixels, SplitClasses, heads, is_multi_head
from awp_tf.data import Split, hold_out
from awp_tf.data.sources import Source, source_of
from awp_tf.data.stored import Decoded
from awp_tf.infra.errors import UserError


def tasks_of(tasks, validation=12):
    source = source_of("tiny", tiny_split(80), tiny_split(40, seed=1), ["a", "b", "c", "d"])
    return source, tasks(source, *hold_out(source.train, validation))


def test_pixels_are_permuted_alike_in_all_splits_and_the_first_task_is_as_it_is():
    source, (first, second, third) = tasks_of(PermutedPixels(3))
    np.testing.assert_array_equal(first.test.images, source.test.images)
    assert sorted(second.test.images[0].ravel()) == sorted(source.test.images[0].ravel())
    place = int(np.flatnonzero(second.test.images[0].ravel() == source.test.images[0].ravel()[5])[0])
    flat = [task.train.images.reshape(len(task.train), -1) for task in (first, second)]
    np.testing.assert_array_equal(flat[1][:, place], flat[0][:, 5])
    assert not np.array_equal(second.test.images, third.test.images)
    assert not is_multi_head([first, second, third], 4)


def test_the_channels_of_a_pixel_stay_together():
    split = tiny_split(20)
    coloured = source_of(
        "c", *(type(split)(np.repeat(s.images, 3, -1) * [1, 0.5, 0.1], s.labels) for s in (split, split))
    )
    second = PermutedPixels(2)(coloured, coloured.train, coloured.test)[1]
    np.testing.assert_allclose(second.train.images[..., 1], 0.5 * second.train.images[..., 0])


def test_each_task_draws_samples_of_its_own():
    _, found = tasks_of(PermutedPixels(2, samples=20))
    assert [len(task.train) for task in found] == [20, 20]
    totals = [sorted(task.train.images.sum(axis=(1, 2, 3)).round(4)) for task in found]
    assert totals[0] != totals[1]
    _, again = tasks_of(PermutedPixels(2, samples=20))
    np.testing.assert_array_equal(found[1].train.images, again[1].train.images)


def test_classes_are_cut_in_their_order_and_labels_are_places():
    source, (first, second) = tasks_of(SplitClasses(2, order=(3, 1, 0, 2)))
    assert (first.classes, second.classes) == ((3, 1), (0, 2))
    assert first.class_names == ("d", "b")
    assert set(first.train.labels) == {0, 1}
    for label, place in ((3, 0), (1, 1)):
        np.testing.assert_array_equal(
            first.test.images[first.test.labels == place], source.test.images[source.test.labels == label]
        )
    assert len(first.test) + len(second.test) == len(source.test)
    np.testing.assert_array_equal(heads([first, second], 4), [[0, 1, 0, 1], [1, 0, 1, 0]])
    assert is_multi_head([first, second], 4)


def test_with_one_head_labels_stay_and_all_classes_are_open():
    source, (first, second) = tasks_of(SplitClasses(2, multi_head=False))
    assert first.classes == second.classes == (0, 1, 2, 3)
    assert set(second.test.labels) == {2, 3}
    assert second.class_names == tuple(source.class_names)
    assert not is_multi_head([first, second], 4)


def test_a_random_order_is_that_of_its_seed():
    orders = [
        [task.classes for task in tasks_of(SplitClasses(2, order="random", seed=seed))[1]] for seed in (0, 0, 1, 2)
    ]
    assert orders[0] == orders[1]
    assert len({str(order) for order in orders}) > 1
    assert sorted(sum(orders[0], ())) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (lambda: SplitClasses(5), r"count: expected a number of tasks that share the 4 classes .* evenly.*received 5"),
        (lambda: SplitClasses(3), r"at least 2 each \(2\), received 3"),
        (lambda: SplitClasses(4), "received 4"),
        (lambda: SplitClasses(2, order=(0, 1, 2, 2)), r"order: expected each of the labels 0\.\.3 once"),
        (lambda: SplitClasses(2, order=(0, 1, 2, "3")), r"order: expected each of the labels 0\.\.3 once"),
        (lambda: SplitClasses(2, order=(0.0, 1.0, 2.0, 3.0)), r"order: expected each of the labels 0\.\.3 once"),
        (lambda: SplitClasses(2, order=None), "order: expected every label once, for instance .* received None"),
        (lambda: SplitClasses(2, samples=0), "SplitClasses.samples: expected a whole number >= 1"),
        (lambda: PermutedPixels(2, samples=0.5), "PermutedPixels.samples: expected a whole number >= 1"),
        (lambda: SplitClasses(2, order="chronological"), "order: expected one of as numbered, random"),
        (lambda: SplitClasses(2, samples=100), r"samples: expected at most the \d+ training images of task 1"),
        (lambda: PermutedPixels(2, samples=100), "samples: expected at most the 68 training images of task 1"),
        (lambda: PermutedPixels(0), "count: expected a whole number >= 2"),
    ],
)
def test_what_cannot_be_cut_is_said(tasks, message):
    with pytest.raises(UserError, match=message):
        tasks_of(tasks())


def test_a_task_without_validation_images_is_refused():
    with pytest.raises(UserError, match=r"expected validation images in task \d .*hold out more"):
        tasks_of(SplitClasses(2), validation=1)


@pytest.mark.parametrize("tasks", [PermutedPixels(2), SplitClasses(2)])
@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_task_with_nothing_to_be_tested_on_is_refused(tasks, missing):
    full, empty = tiny_split(40), tiny_split(40).take(slice(0, 0))
    source = Source("tiny", full, empty if missing == "test" else full, 4)
    with pytest.raises(UserError, match=rf"{type(tasks).__name__}: expected {missing} images in task 1 .* none"):
        tasks(source, full, empty if missing == "validation" else full)


def test_the_superclasses_of_cifar100_hold_each_class_once_under_its_name():
    """CIFAR-100 numbers its classes as the alphabet does."""
    file = pathlib.Path(__file__).parents[2] / "gin" / "tasks" / "split_cifar100_superclasses.gin"
    text = file.read_text()
    rows = re.findall(r"^    ([\d, ]+),  # ([\w, ]+)$", text, re.MULTILINE)
    numbers = [int(number) for row, _ in rows for number in row.split(",")]
    names = [name for _, row in rows for name in row.split(", ")]
    assert numbers == [sorted(names).index(name) for name in names]
    assert sorted(numbers) == list(range(100))
    assert [len(row.split(",")) for row, _ in rows] == [5] * 20
    orders = [list(map(int, line.split())) for line in re.findall(r"^#  ((?: \d+){20})$", text, re.MULTILINE)]
    assert len(orders) == 4
    assert all(sorted(order) == list(range(20)) for order in orders)


def test_images_that_are_not_in_memory_stay_where_they_are():
    def decode(row):
        raise AssertionError(f"image {row} is not needed yet")

    images = Decoded(range(6), decode, (4, 4, 3), 0, str)
    split = Split(images, np.array([0, 1, 2, 3, 0, 2], np.int32))
    first, second = SplitClasses(2)(Source("stored", split, split, 4), split, split)
    assert (first.train.labels.tolist(), second.train.labels.tolist()) == ([0, 1, 0], [0, 1, 0])
    assert second.test.images.rows.tolist() == [2, 3, 5]
