"""Labels as probabilities and blended images: the label says what the image shows."""

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import Batches, CutMix, MixChain, MixUp, NoMix, PadCropFlip, SmoothLabels, Split
from awp_tf.data.augment import random_box
from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed

CLASSES = 60
MIXES = [SmoothLabels(), MixUp(), MixUp(0.2), CutMix(), MixChain([MixUp(), SmoothLabels(0.2)])]
BLENDS = [mix for mix in MIXES if not isinstance(mix, SmoothLabels)]


def numbered(count=60):
    """Images of one brightness each, in the order of their labels: a pixel tells which image it is of."""
    values = (np.arange(count) / (count - 1)).astype(np.float32)
    return np.broadcast_to(values[:, None, None, None], (count, 16, 12, 3)).copy(), np.arange(count, dtype=np.int32)


def mixed(mix, seed=0, dtype="float32"):
    images, labels = numbered()
    x, y = mix(tf.constant(images, dtype), tf.constant(labels), CLASSES, make_seed(seed))
    assert x.dtype == y.dtype == dtype
    return x.numpy(), y.numpy()


def batches(mix, **settings):
    images, labels = numbered()
    images = np.round(255 * images).astype(np.uint8)
    return Batches(Split(images, labels), 16, PadCropFlip(2), mix=mix, classes=CLASSES, **settings)


@pytest.mark.parametrize("mix", MIXES, ids=repr)
def test_a_batch_is_a_function_of_seed_and_step(mix):
    whole = list(batches(mix, seed=3).dataset(0, 9))
    for (x, y), (z, w) in zip(batches(mix, seed=3).dataset(7, 9), whole[7:], strict=True):
        np.testing.assert_array_equal(x, z)
        np.testing.assert_array_equal(y, w)
    assert (whole[0][1].numpy() != whole[4][1].numpy()).any()
    other = next(iter(batches(mix, seed=4).dataset(0, 1)))
    assert (whole[0][1].numpy() != other[1].numpy()).any()


def test_without_a_mix_images_and_labels_are_what_they_were():
    images, labels = numbered()
    plain = Batches(Split(images, labels), 16, PadCropFlip(2), seed=1)
    with_slot = Batches(Split(images, labels), 16, PadCropFlip(2), seed=1, mix=NoMix(), classes=CLASSES)
    for (x, y), (z, w) in zip(plain.dataset(0, 4), with_slot.dataset(0, 4), strict=True):
        np.testing.assert_array_equal(x, z)
        np.testing.assert_array_equal(y, w)
        assert y.dtype == w.dtype == tf.int32


@pytest.mark.parametrize("mix", BLENDS, ids=repr)
def test_a_mix_has_noise_of_its_own_and_leaves_augmentation_as_it_is(mix):
    smooth, blended = (next(iter(batches(m).dataset(0, 1)))[0].numpy() for m in (SmoothLabels(), mix))
    plain = next(iter(batches(NoMix()).dataset(0, 1)))[0].numpy()
    np.testing.assert_array_equal(smooth, plain)
    assert (blended != plain).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mix", MIXES, ids=repr)
def test_images_stay_in_range_and_labels_add_up_to_one(mix, dtype):
    x, y = mixed(mix, dtype=dtype)
    assert x.shape == (60, 16, 12, 3)
    assert x.min() >= 0
    assert x.max() <= 1
    assert y.min() >= 0
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-6)


def test_smooth_labels_leave_the_label_and_an_equal_share_of_the_rest():
    _, y = mixed(SmoothLabels(0.3), dtype="float64")
    np.testing.assert_allclose(np.diag(y), 0.7 + 0.3 / CLASSES)
    np.testing.assert_allclose(y[~np.eye(CLASSES, dtype=bool)], 0.3 / CLASSES)


def test_the_labels_of_mixup_are_as_blended_as_its_images():
    x, y = mixed(MixUp(), dtype="float64")
    values = numbered()[0][:, 0, 0, 0].astype(np.float64)
    np.testing.assert_allclose(x[:, 0, 0, 0], y @ values, atol=1e-12)
    shares = np.diag(y)
    assert ((y > 0).sum(axis=1) <= 2).all()
    assert len(np.unique(shares.round(6))) > 50
    np.testing.assert_allclose(np.sort(shares), np.linspace(0, 1, 60), atol=0.25)  # Beta(1, 1) is uniform


def test_a_small_alpha_leaves_most_images_almost_as_they_are():
    for alpha in (0.01, 0.1):
        shares = np.diag(mixed(MixUp(alpha))[1])
        assert (np.minimum(shares, 1 - shares) < 0.05).mean() > 0.6
        assert np.isfinite(shares).all()


def test_the_labels_of_cutmix_are_the_shares_of_the_pixels():
    x, y = mixed(CutMix(), dtype="float64")
    values = numbered()[0][:, 0, 0, 0].astype(np.float64)
    found = (x[..., 0, None] == values).mean(axis=(1, 2))  # which image each pixel is of
    np.testing.assert_allclose(found, y, atol=1e-12)
    np.testing.assert_array_equal(x, x[..., :1].repeat(3, axis=-1))
    assert len(np.unique(np.diag(y))) > 30
    assert 0.55 < np.diag(y).mean() < 0.85  # half without the border, which cuts boxes off


def test_a_box_has_its_size_and_its_centre_anywhere():
    images = tf.zeros([4000, 9, 7, 1])
    inside = random_box(make_seed(0), images, tf.fill([4000], 3), tf.fill([4000], 2)).numpy()[..., 0]
    areas = inside.sum(axis=(1, 2))
    assert set(areas) <= {2, 3, 4, 6, 1}
    assert (inside.any(axis=2).sum(axis=1) == 3).mean() == pytest.approx(7 / 9, abs=0.03)
    cover = inside.mean(axis=0)
    assert cover[1:8, :6].min() > 0.8 * cover.max()


def test_mixes_in_a_chain_follow_each_other():
    _, y = mixed(MixChain([CutMix(), SmoothLabels(0.5)]), dtype="float64")
    _, cut = CutMix()(*map(tf.constant, numbered()), CLASSES, make_seed(0).fold(0))
    np.testing.assert_allclose(y, 0.5 * cut.numpy() + 0.5 / CLASSES, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SmoothLabels(1.0), r"SmoothLabels\.amount: expected a number in \[0, 1\), received 1\.0"),
        (lambda: MixUp(0.0), r"MixUp\.alpha: expected a number > 0, received 0\.0"),
        (lambda: CutMix(-1), r"CutMix\.alpha: expected a number > 0, received -1"),
        (lambda: CutMix("1"), r"CutMix\.alpha: expected a number that stays as it is, received '1'"),
        (lambda: Batches(Split(*numbered()), 8, mix=MixUp()), "classes: expected a whole number >= 1, received 0"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
