"""RandAugment against Pillow, operation by operation, and what it promises as a whole."""

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import RandAugment
from awp_tf.data.rand_augment import OPERATIONS
from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed

STRENGTH = 0.5


@pytest.fixture
def images(rng):
    """Of low contrast and with noise, so that every operation has something to change."""
    blocks = rng.integers(40, 170, (6, 4, 4, 3)).repeat(6, axis=1).repeat(5, axis=2)
    return (blocks + rng.integers(0, 9, blocks.shape)).astype(np.uint8)  # 24 x 20


def by_pillow(name, image, sign):
    pillow, ops, enhance = (pytest.importorskip(f"PIL.{part}") for part in ("Image", "ImageOps", "ImageEnhance"))
    image = pillow.fromarray(image)
    shear, shift = sign * 0.3 * STRENGTH, sign * int(150 / 331 * 0.5 * (20 if name.endswith("x") else 24))
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }
    if name in matrices:
        return image.transform(image.size, pillow.Transform.AFFINE, matrices[name], pillow.Resampling.NEAREST)
    if name.capitalize() in ("Brightness", "Color", "Contrast", "Sharpness"):
        return getattr(enhance, name.capitalize())(image).enhance(1 + 0.9 * STRENGTH * sign)
    others = {
        "identity": lambda: image,
        "rotate": lambda: image.rotate(sign * 30 * STRENGTH),
        "posterize": lambda: ops.posterize(image, 6),
        "solarize": lambda: ops.solarize(image, 255 * (1 - STRENGTH)),
        "auto_contrast": lambda: ops.autocontrast(image),
        "equalize": lambda: ops.equalize(image),
    }
    return others[name]()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_pillow_does(name, sign, images):
    expected = np.stack([np.asarray(by_pillow(name, image, sign)) for image in images]).astype(float)
    found = OPERATIONS[name](tf.constant(images, tf.float32), STRENGTH, tf.fill([6], float(sign))).numpy()
    assert np.abs(found - expected).max() < 1.5  # Pillow rounds down, and its grey values, too
    assert (np.abs(found - images).max() > 2) == (name != "identity")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_keeps_shape_type_and_range_and_is_a_function_of_the_seed(images, dtype, channels):
    scale = 1 if dtype == "uint8" else 255
    x = tf.constant(images[..., :channels] / scale, dtype)
    first, again, other = (RandAugment(3, 20)(x, make_seed(s)).numpy() for s in (0, 0, 1))
    assert first.shape == x.shape
    assert first.dtype == dtype
    assert first.min() >= 0
    assert first.max() <= 255 / scale
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_every_image_has_operations_of_its_own(images):
    same = tf.repeat(tf.constant(images[:1]), 300, axis=0)
    results = {image.tobytes() for image in RandAugment(1, 15)(same, make_seed(0)).numpy()}
    assert 20 < len(results) <= 24  # 14 operations, ten of them in two directions


def test_the_magnitude_says_how_far(images):
    x = tf.constant(images)
    change = [np.abs(RandAugment(1, m)(x, make_seed(0)).numpy().astype(float) - images).mean() for m in (3, 25)]
    assert change[0] < change[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(0), r"RandAugment\.operations: expected a whole number >= 1, received 0"),
        (lambda: RandAugment(magnitude=-1), r"RandAugment\.magnitude: expected a whole number >= 0"),
        (lambda: RandAugment(magnitude=31), r"RandAugment\.magnitude: expected at most 30, received 31"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
