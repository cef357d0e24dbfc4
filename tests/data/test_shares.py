"""Each machine reads its own rows of every global batch: put together, they are the batch of one machine."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_split

from awp_tf.data import (
    Batches,
    Chain,
    CutMix,
    Cutout,
    MixChain,
    MixedBatches,
    MixUp,
    NoAugment,
    NoMix,
    PadCropFlip,
    RandAugment,
    RandomResizedCrop,
    Rotate,
    SmoothLabels,
    Split,
)
from awp_tf.data.stored import Chosen

AUGMENTS = [
    *(NoAugment(), PadCropFlip(2), Rotate(), Cutout(3), RandAugment(), RandomResizedCrop()),
    Chain((PadCropFlip(2), Cutout(3))),
]
MIXES = [SmoothLabels(), MixUp(), CutMix(), MixChain((MixUp(), SmoothLabels()))]
CASES = [*((augment, NoMix()) for augment in AUGMENTS), *((PadCropFlip(2), mix) for mix in MIXES)]


def put_together(batches, stop, workers):
    """Step by step, the rows of all replicas of all workers, in order."""
    parts = [list(batches.shares(0, stop, worker, workers)) for worker in range(workers)]
    local = batches.replicas // workers
    for step in range(stop):
        shares = itertools.chain(*(part[step * local : (step + 1) * local] for part in parts))
        yield [tf.concat(each, 0).numpy() for each in zip(*shares, strict=True)]


def assert_same(batches, workers):
    stop = batches.steps_per_epoch + 1  # the last, smaller batch of an epoch is among them
    whole = list(batches.dataset(0, stop))
    for (x, y), (z, w) in zip(whole, put_together(batches, stop, workers), strict=True):
        np.testing.assert_array_equal(x, z)
        np.testing.assert_array_equal(y, w)


@pytest.mark.parametrize(("augment", "mix"), CASES, ids=repr)
def test_shares_put_together_are_the_batch(augment, mix):
    assert_same(Batches(tiny_split(42), 16, augment, 3, 4, mix=mix, classes=4), workers=2)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_batch_is_the_same_on_any_number_of_machines(workers):
    assert_same(Batches(tiny_split(42), 16, PadCropFlip(2), 3, 4), workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_extra_images_are_shared_too(workers):
    settings = {"split": tiny_split(42), "batch_size": 16, "augment": PadCropFlip(2), "replicas": 4}
    assert_same(MixedBatches(**settings, extra=tiny_split(9, seed=1), ratio=0.3), workers)


class Spy(Chosen):
    """Images that tell how many of them were read at a time."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = []

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.read.append(len(found))
        return found


def test_a_machine_reads_its_own_rows_only():
    split = tiny_split(64)
    images = Spy(split.images, np.arange(64))
    batches = Batches(Split(images, split.labels), 16, PadCropFlip(2), replicas=4)
    images.read.clear()
    list(batches.shares(0, 4, 1, 4))
    assert images.read == [4] * 4


def test_an_augmentation_of_ones_own_that_promises_nothing_sees_the_whole_batch():
    sizes = []

    class Own:
        def __call__(self, images, seed):
            tf.numpy_function(lambda n: sizes.append(int(n)) or np.int64(0), [tf.shape(images)[0]], tf.int64)
            return images[::-1]

    batches = Batches(tiny_split(32), 16, Own(), replicas=2)
    list(batches.shares(0, 2, 1, 2))
    assert_same(batches, 2)
