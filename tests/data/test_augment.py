import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import Chain, Cutout, NoAugment, PadCropFlip, RandAugment, Rotate
from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed

AUGMENTS = [
    *(NoAugment(), PadCropFlip(), PadCropFlip(mode="zero"), Rotate(), Cutout(5), RandAugment()),
    Chain([PadCropFlip(2), Rotate(5), RandAugment(1), Cutout(3)]),
]


@pytest.fixture
def images(rng):
    return tf.constant(rng.integers(1, 256, (30, 12, 10, 3)), tf.uint8)


@pytest.mark.parametrize("augment", AUGMENTS, ids=repr)
def test_keeps_shape_and_type_and_is_a_function_of_the_seed(augment, images):
    first, again, other = (augment(images, make_seed(s)).numpy() for s in (0, 0, 1))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first == other).all() == isinstance(augment, NoAugment)


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_every_image_is_a_window_of_its_padded_self_or_of_its_mirror_image(images, mode):
    pad, seen, mirrored = 2, set(), 0
    kind = {"reflect": {"mode": "reflect"}, "zero": {"mode": "constant"}}[mode]
    changed = PadCropFlip(pad, mode)(images, make_seed(4)).numpy()
    for image, result in zip(images.numpy(), changed, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), **kind)
        windows = {(r, c): padded[r : r + 12, c : c + 10] for r in range(5) for c in range(5)}
        plain = {place for place, window in windows.items() if (window == result).all()}
        flipped = {place for place, window in windows.items() if (window[:, ::-1] == result).all()}
        assert plain or flipped
        seen |= plain | flipped
        mirrored += not plain
    assert len(seen) > 12
    assert 5 < mirrored < 25


def test_all_offsets_and_both_sides_occur_equally_often():
    ramp = tf.reshape(tf.cast(tf.range(81), tf.uint8), [1, 9, 9, 1])
    changed = PadCropFlip(1, "zero")(tf.repeat(ramp, 3000, axis=0), make_seed(0)).numpy()
    counts = np.unique(changed[:, 4, 4, 0], return_counts=True)[1]
    assert len(counts) == 9
    assert (np.abs(counts / 3000 - 1 / 9) < 0.03).all()


def test_no_rotation_is_no_change_and_a_half_turn_is_a_half_turn(images):
    np.testing.assert_array_equal(Rotate(0.0)(images, make_seed(0)), images)
    turned = rotated_by(images, np.pi)
    np.testing.assert_array_equal(turned, images[:, ::-1, ::-1])


def rotated_by(images, angle):
    """Rotate with a fixed angle in place of the drawn one."""
    original = tf.random.stateless_uniform
    tf.random.stateless_uniform = lambda shape, *_, **__: tf.ones(shape)
    try:
        return Rotate(angle * 180 / np.pi)(images, make_seed(0))
    finally:
        tf.random.stateless_uniform = original


def test_rotation_leaves_black_corners_and_stays_within_its_angle():
    white = tf.fill([400, 21, 21, 1], tf.constant(255, tf.uint8))
    turned = Rotate(15.0)(white, make_seed(0)).numpy()
    assert (turned[:, 10, 10] == 255).all()
    assert (turned[:, 0, 0] == 0).mean() > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PadCropFlip(pad=-1), r"PadCropFlip\.pad: expected a whole number >= 0, received -1"),
        (lambda: PadCropFlip(mode="edge"), 'PadCropFlip\\.mode: expected "reflect" or "zero", received \'edge\''),
        (lambda: Cutout(0), r"Cutout\.size: expected a whole number >= 1, received 0"),
        (lambda: Rotate(-1.0), r"Rotate\.degrees: expected a number >= 0, received -1\.0"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_cutout_blackens_a_square_somewhere_in_each_image(images):
    whole, changed = images.numpy(), Cutout(5)(images, make_seed(0)).numpy()  # no pixel is black before
    black = (changed == 0).all(axis=-1)
    np.testing.assert_array_equal(changed[~black], whole[~black])
    places = set()
    for square in black:
        rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
        assert square[np.ix_(rows, columns)].all()
        assert 3 <= len(rows) <= 5
        assert 3 <= len(columns) <= 5
        places.add((rows[0], columns[0]))
    assert len(places) > 15


def test_a_square_larger_than_the_image_is_refused(images):
    with pytest.raises(UserError, match=r"Cutout\.size: expected at most the 10 pixels of a side, received 11"):
        Cutout(11)(images, make_seed(0))


@pytest.mark.parametrize("side", [3, 4])
def test_padding_that_has_nothing_to_reflect_is_refused(side):
    images = tf.zeros([2, side, 9, 1], tf.uint8)
    with pytest.raises(UserError, match=rf"PadCropFlip\.pad: expected less than the {side} pixels of a side"):
        PadCropFlip()(images, make_seed(0))
    assert PadCropFlip(pad=2)(images, make_seed(0)).shape == images.shape
