"""Windows of every image: where they may be, and what becomes of their pixels."""

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import RandomResizedCrop
from awp_tf.infra.errors import UserError
from awp_tf.noise import DATA, make_seed

SEED = make_seed(0, DATA, tf.constant(3, tf.int64))


def ramp(count, height, width):
    """Images whose pixels say where they are: column and row, float32 in [0, 1]."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return tf.constant(np.repeat(np.stack([x / width, y / height], -1)[None], count, 0).astype(np.float32))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 90)])
def test_windows_are_of_the_area_and_form_that_were_asked_for(height, width):
    crop = RandomResizedCrop()
    rows, columns, top, left = (v.numpy() for v in crop.windows(SEED, 2000, height, width))
    area, form = rows * columns / (height * width), columns / rows
    assert area.min() > 0.07
    assert area.max() <= 1
    assert form.min() > 0.7
    assert form.max() < 1.45  # sides are whole numbers
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    assert len(np.unique(np.stack([rows, columns, top, left]), axis=1).T) > 1900


def test_a_window_of_everything_is_the_image_and_half_are_mirrored():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (64, 9, 9, 3), dtype=np.uint8))
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    np.testing.assert_array_equal(RandomResizedCrop(**whole, flip=False)(images, SEED), images)
    found = RandomResizedCrop(**whole)(images, SEED).numpy()
    same = (found == images.numpy()).all((1, 2, 3))
    np.testing.assert_array_equal(found[~same], images.numpy()[~same, :, ::-1])
    assert 20 < same.sum() < 44


def test_pixels_are_those_of_the_window():
    crop, size = RandomResizedCrop(scale=(0.1, 0.5), flip=False), 32
    images = ramp(20, size, size)
    found, windows = crop(images, SEED).numpy() * size, crop.windows(SEED, 20, size, size)
    for image, rows, columns, top, left in zip(found, *(v.numpy() for v in windows), strict=True):
        places = np.arange(size) + 0.5
        across = np.clip(left + places * columns / size - 0.5, 0, size - 1)
        down = np.clip(top + places * rows / size - 0.5, 0, size - 1)
        np.testing.assert_allclose(image[..., 0], np.broadcast_to(across, (size, size)), atol=1e-3)
        np.testing.assert_allclose(image[..., 1], np.broadcast_to(down[:, None], (size, size)), atol=1e-3)


def test_where_no_window_fits_the_middle_is_taken():
    rows, columns, top, left = RandomResizedCrop(scale=(1.0, 1.0)).windows(SEED, 3, 20, 100)
    for found, expected in ((rows, 20), (columns, 27), (top, 0), (left, 36)):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.5}, r"RandomResizedCrop.scale: expected two numbers, received 0.5"),
        ({"scale": (0.5, 1.5)}, r"RandomResizedCrop.scale: expected 0 < smallest <= largest <= 1"),
        ({"ratio": (2.0, 1.0)}, r"RandomResizedCrop.ratio: expected 0 < smallest <= largest, received"),
    ],
)
def test_settings_that_make_no_window_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        RandomResizedCrop(**settings)
