import itertools

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import Batches, PadCropFlip, Split, hold_out, ordered
from awp_tf.infra.errors import UserError


def numbered(count):
    """Images whose pixels are their number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 1))
    return Split(images.copy(), np.arange(count, dtype=np.int32))


def labels(dataset):
    return [y.numpy().tolist() for _, y in dataset]


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    batches = Batches(numbered(50), 8)
    assert batches.steps_per_epoch == 7
    epochs = [list(itertools.chain(*labels(batches.dataset(start, start + 7)))) for start in (0, 7)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(50))


def test_a_batch_is_a_pure_function_of_seed_and_step():
    batches = Batches(numbered(50), 8, PadCropFlip(2), seed=3)
    whole = list(batches.dataset(0, 14))
    for start in (1, 6, 9):
        for (x, y), (z, w) in zip(batches.dataset(start, 14), whole[start:], strict=True):
            np.testing.assert_array_equal(x, z)
            np.testing.assert_array_equal(y, w)
    assert labels(Batches(numbered(50), 8, seed=4).dataset(0, 3)) != labels(batches.dataset(0, 3))


def test_images_keep_their_labels_and_come_in_unit_range():
    for x, y in Batches(numbered(50), 16).dataset(0, 4):
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y, rtol=1e-6)
    for x, y in ordered(numbered(10), 4, "float64"):
        assert x.dtype == tf.float64
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y)


def test_the_order_is_close_to_uniform():
    places = np.zeros((20, 20))
    for order in labels(Batches(numbered(20), 20).dataset(0, 300)):
        places[np.arange(20), order] += 1
    assert places.min() > 0
    assert np.abs(places / 300 - 1 / 20).max() < 0.06


@pytest.mark.parametrize(("count", "last"), [(50, 2), (51, 3), (52, 4), (48, 8)])
def test_the_last_batch_can_be_shared_by_the_replicas(count, last):
    batches = Batches(numbered(count), 8, replicas=1)
    assert [len(y) for y in labels(batches.dataset(0, batches.steps_per_epoch))][-1] == last
    shared = Batches(numbered(count), 8, replicas=4)
    sizes = [len(y) for y in labels(shared.dataset(0, shared.steps_per_epoch))]
    assert all(size % 4 == 0 and size for size in sizes)
    assert sum(sizes) == shared.images_per_epoch == count - count % 4


def test_validation_images_are_held_out_by_their_own_seed():
    train, validation = hold_out(numbered(200), 50, seed=1)
    assert len(train) == 150
    assert not set(train.labels) & set(validation.labels)
    np.testing.assert_array_equal(hold_out(numbered(200), 50, seed=1)[1].labels, validation.labels)
    assert set(hold_out(numbered(200), 50, seed=2)[1].labels) != set(validation.labels)


@pytest.mark.parametrize(("total", "count", "held"), [(200, 0.25, 50), (200, None, 20), (250, 7, 7)])
def test_how_many_are_held_out(total, count, held):
    assert len(hold_out(numbered(total), count)[1]) == held


def test_by_default_a_thousand_of_fifty_thousand_are_held_out():
    big = Split(np.zeros((50_000, 1, 1, 1), np.uint8), np.zeros(50_000, np.int32))
    assert len(hold_out(big, None)[1]) == 1000
    bigger = Split(np.zeros((73_257, 1, 1, 1), np.uint8), np.zeros(73_257, np.int32))
    assert len(hold_out(bigger, None)[1]) == 1000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batches(numbered(9), 10), "expected at most the 9 training images, received 10"),
        (lambda: Batches(numbered(9), 8, replicas=3), "expected a multiple of the 3 devices that share it, received 8"),
        (lambda: Batches(numbered(9), 0), "batch_size: expected a whole number >= 1"),
        (
            lambda: hold_out(numbered(9), 9),
            r"expected a whole number between 1 and 8 \(there are 9 images\), or a fraction below 1, received 9",
        ),
        (lambda: hold_out(numbered(9), 0), "received 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_an_image_is_augmented_anew_in_every_epoch():
    rng = np.random.default_rng(0)
    split = Split(rng.uniform(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4, dtype=np.int32))
    found = {label: [] for label in range(4)}
    for x, y in Batches(split, 4, PadCropFlip()).dataset(0, 4):
        for image, label in zip(x.numpy(), y.numpy(), strict=True):
            found[int(label)].append(image)
    for images in found.values():
        assert len({image.tobytes() for image in images}) > 1


@pytest.mark.parametrize("count", [2.9, "0.2", True, -0.5, 1.0, np.nan])
def test_what_is_neither_a_number_of_images_nor_a_share_is_refused(count):
    with pytest.raises(UserError, match="validation: expected a whole number between 1 and 8"):
        hold_out(numbered(9), count)


@pytest.mark.parametrize(("count", "size", "replicas"), [(50, 8, 1), (50, 8, 4), (48, 8, 2), (1237, 64, 1)])
def test_images_are_counted_as_they_are_shown(count, size, replicas):
    batches = Batches(numbered(count % 256), size, replicas=replicas)
    sizes = [len(y) for y in labels(batches.dataset(0, 2 * batches.steps_per_epoch))]
    assert [batches.images_before(step) for step in range(len(sizes) + 1)] == [0, *itertools.accumulate(sizes)]
    assert batches.images_per_epoch == sum(sizes) // 2
