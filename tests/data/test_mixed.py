"""Batches of labelled and extra images."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import Batches, MixedBatches, PadCropFlip, Split
from awp_tf.infra.errors import UserError
from awp_tf.training.strategy import make_strategy

FIRST = 1000  # extra labels count from here


def numbered(count, first=0):
    """Images whose first two pixels say which they are; so do their labels."""
    labels = np.arange(first, first + count, dtype=np.int32)
    images = np.zeros((count, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = labels % 256, labels // 256
    return Split(images, labels)


def mixed(labelled=50, extra=30, size=8, **settings):
    return MixedBatches(split=numbered(labelled), batch_size=size, extra=numbered(extra, FIRST), **settings)


def labels(batches, start, stop):
    return [y.numpy() for _, y in batches.dataset(start, stop)]


@pytest.mark.parametrize(("ratio", "count"), [(0.5, 4), (0.25, 2), (0.7, 6), (0.1, 1), (0.93, 7)])
def test_every_batch_is_full_and_has_exactly_its_share_of_extra_images(ratio, count):
    batches = mixed(ratio=ratio)
    for y in labels(batches, 0, 2 * batches.steps_per_epoch):
        assert len(y) == 8
        assert (y >= FIRST).sum() == count


def test_an_epoch_is_as_long_as_without_extra_images_and_shows_no_labelled_image_twice():
    batches = mixed()
    assert batches.steps_per_epoch == Batches(numbered(50), 8).steps_per_epoch == 7
    epochs = [np.concatenate(labels(batches, first, first + 7)) for first in (0, 7)]
    shown = [y[y < FIRST].tolist() for y in epochs]
    assert [len(set(y)) for y in shown] == [28, 28]
    assert set(shown[0]) != set(shown[1])


def test_where_an_epoch_needs_more_labelled_images_than_there_are_a_second_permutation_follows():
    batches = mixed(labelled=17, size=16, ratio=0.1)  # 2 batches with 14 in each; 17 are there
    first, second = (y[y < FIRST] for y in labels(batches, 0, 2))
    assert len(set(first)) == 14
    assert set(range(17)) - set(first) <= set(second)  # what was left of the first permutation
    assert np.unique(np.concatenate([first, second])).size == 17


def test_a_mixed_batch_is_a_pure_function_of_seed_and_step():
    batches = mixed(augment=PadCropFlip(2), seed=3)
    whole = list(batches.dataset(0, 14))
    for (x, y), (z, w) in zip(batches.dataset(7, 14), whole[7:], strict=True):
        np.testing.assert_array_equal(x, z)
        np.testing.assert_array_equal(y, w)
    other = labels(mixed(seed=4), 0, 1)[0]
    assert other.tolist() != whole[0][1].numpy().tolist()


def test_extra_images_are_drawn_uniformly_from_all_of_them_and_keep_their_labels():
    batches = mixed(extra=20, size=40)
    counts = np.zeros(20)
    for x, y in batches.dataset(0, 200):
        pixels = np.rint(x.numpy()[:, 0, :2, 0] * 255)
        np.testing.assert_array_equal(pixels @ [1, 256], y)
        np.add.at(counts, y[y >= FIRST].numpy() - FIRST, 1)
    assert counts.sum() == 4000
    assert np.abs(counts / 200 - 1).max() < 0.3  # four standard deviations


def test_rows_are_shuffled_so_that_replicas_get_alike_shares():
    batches = mixed(labelled=200, size=64, replicas=2)
    halves = np.array([[(half >= FIRST).sum() for half in np.split(y, 2)] for y in labels(batches, 0, 40)])
    assert np.abs(halves.mean(axis=0) - 16).max() < 1.5
    assert halves.min() >= 5
    assert len(set(halves[:, 0])) > 1


def test_images_are_counted_as_they_are_shown():
    batches = mixed(replicas=4)
    sizes = [len(y) for y in labels(batches, 0, 14)]
    assert [batches.images_before(step) for step in range(15)] == [0, *itertools.accumulate(sizes)]
    assert batches.images_per_epoch == sum(sizes[:7]) == 56


def test_replicas_share_what_one_device_gets():
    strategy = make_strategy(2)
    shared = strategy.experimental_distribute_dataset(mixed(replicas=2).dataset(0, 7))
    alone = labels(mixed(replicas=2), 0, 7)
    for (_, y), whole in zip(shared, alone, strict=True):
        parts = strategy.experimental_local_results(y)
        assert [len(part) for part in parts] == [4, 4]
        np.testing.assert_array_equal(tf.concat(parts, 0), whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0}, r"ratio: expected a number in \(0, 1\), received 0"),
        ({"ratio": 1.0}, r"ratio: expected a number in \(0, 1\), received 1\.0"),
        ({"ratio": 0.05}, r"ratio: expected extra and labelled images in a batch of 8, received 0\.05, which makes 0"),
        ({"ratio": 0.95}, r"which makes 8 of them extra; change it, or take a larger batch"),
        ({"size": 64}, "batch_size: expected at most the 50 training images"),
    ],
)
def test_a_ratio_that_leaves_nothing_of_one_kind_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        mixed(**settings)


def test_a_run_remembers_its_extra_images_and_says_how_many():
    assert Batches(numbered(50), 8).identity == {}
    assert Batches(numbered(50), 8).remark == ""
    assert mixed().identity == {"extra images": f"30, SHA-256 {numbered(30, FIRST).digest()}"}
    assert mixed().remark == "\n30 extra images: 4 of the 8 of every batch (ratio 0.5)"
