"""Images without labels."""

import numpy as np
import PIL.Image
import pytest

from awp_tf.data import digits
from awp_tf.data.unlabelled import unlabelled
from awp_tf.infra.errors import UserError

SHAPE = (8, 8, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"image": 0, "x_train": 1, "x_test": 2}, 0),
        ({"x_test": 2, "x_train": 1, "y_train": None}, 1),
        ({"x_test": 2, "y_test": None}, 2),
        ({"mine": 3}, 3),
    ],
)
def test_an_npz_file_has_its_images_under_a_name_or_alone_and_keeps_them(tmp_path, arrays, wanted):
    given = {name: np.zeros(4) if first is None else IMAGES[first:] for name, first in arrays.items()}
    np.savez(tmp_path / "a.npz", **given)
    found = unlabelled(str(tmp_path / "a.npz"), SHAPE)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, IMAGES[wanted:])


def test_of_a_data_set_the_training_images_are_taken():
    np.testing.assert_array_equal(unlabelled("digits", (8, 8, 1)), digits().train.images)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)


def test_a_folder_has_images_in_class_folders_or_not(tmp_path):
    for place, name in enumerate(("2.png", "1.png", "b/1.png", "a/1.png", ".hidden/1.png")):
        save(tmp_path / name, IMAGES[place])
    (tmp_path / "notes.txt").write_text("no image")
    found = unlabelled(str(tmp_path), SHAPE)
    np.testing.assert_array_equal(found, IMAGES[[1, 0, 3, 2]])
    assert unlabelled(str(tmp_path), (16, 16, 1)).shape == (4, 16, 16, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": IMAGES[:, :4]}, r"expected images of \[8, 8, 3\], which the network takes, received \[4, 8, 3\]"),
        ({"image": IMAGES.astype(np.float32)}, r"expected uint8 images in \[0, 255\] or floats in \[0, 1\]"),
        ({"image": np.full((3, *SHAPE), np.nan)}, "received NaN or infinity in 3 of 3"),
        ({"image": IMAGES[:0]}, "N > 0"),
        ({"image": np.float32(3)}, r"expected images \[N, H, W, C\]"),
        ({"image": np.array(["a"])}, "images of numbers"),
        ({"a": IMAGES, "b": IMAGES}, "expected images under image, x_train, x_test, or one array only, received a, b"),
        ({}, "received nothing"),
    ],
)
def test_what_are_no_such_images_is_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        unlabelled(str(tmp_path / "a.npz"), SHAPE)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: expected an \.npz file"):
        unlabelled(str(tmp_path / "none.npz"), SHAPE)
    with pytest.raises(UserError, match=r"expected images .* in it or in its class folders, received none"):
        unlabelled(str(tmp_path), SHAPE)
    with pytest.raises(UserError, match="expected a network for square images"):
        unlabelled(str(tmp_path), (8, 4, 3))
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"bad\.png: expected a PNG"):
        unlabelled(str(tmp_path), SHAPE)
