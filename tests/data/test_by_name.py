import numpy as np
import pytest
import tensorflow as tf

from awp_tf.data import digits
from awp_tf.data.by_name import data_set
from awp_tf.infra.errors import UserError

SHAPE = (8, 8, 3)


def save_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    tf.io.write_file(str(path), tf.io.encode_png(tf.fill([10, 10, 3], tf.constant(value, tf.uint8))))


def test_digits_by_their_name():
    found = data_set("digits", ["test", "train"], (8, 8, 1))
    assert len(found.splits["test"]) == len(digits().test)
    assert found.class_names == tuple("0123456789")


def test_an_npz_file_needs_the_wanted_split_only(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x_test=np.zeros((3, 8, 8, 3), np.uint8), y_test=np.array([0, 1, 1]))
    assert len(data_set(str(file), ["test"], SHAPE).splits["test"]) == 3
    with pytest.raises(UserError, match="x_train"):
        data_set(str(file), ["train"], SHAPE)


def test_a_folder_of_arrays(tmp_path):
    np.save(tmp_path / "x_test.npy", np.full((3, 8, 8, 3), 9, np.uint8))
    np.save(tmp_path / "y_test.npy", np.array([0, 1, 1]))
    assert data_set(str(tmp_path), ["test"], SHAPE).splits["test"].images.shape == (3, *SHAPE)
    with pytest.raises(UserError, match=r"x_train\.npy: expected a numeric array"):
        data_set(str(tmp_path), ["train"], SHAPE)


def test_a_folder_as_imagenet_has_it(tmp_path):
    for part, value in (("train", 10), ("val", 200)):
        for name in ("cat", "dog"):
            save_image(tmp_path / part / name / "1.png", value)
    found = data_set(str(tmp_path), ["test", "train"], SHAPE)
    assert found.class_names == ["cat", "dog"]
    assert [split.images[0, 0, 0, 0] for split in found.splits.values()] == [200, 10]


def test_a_folder_with_and_without_a_test_folder(tmp_path, capsys):
    for root in (tmp_path / "a" / "test", tmp_path / "b"):
        save_image(root / "cat" / "1.png", 10)
        save_image(root / "dog" / "1.png", 200)
    for root in ("a", "b"):
        found = data_set(str(tmp_path / root), ["test"], SHAPE)
        assert found.class_names == ["cat", "dog"]
        assert found.splits["test"].images.shape == (2, *SHAPE)
        np.testing.assert_array_equal(found.splits["test"].labels, [0, 1])
        assert ("all its images are taken, also those" in capsys.readouterr().out) == (root == "b")


def test_labels_count_through_the_classes_of_training(tmp_path):
    for name in ("ant", "bee", "cat"):
        save_image(tmp_path / "train" / name / "1.png", 10)
        save_image(tmp_path / "test" / name / "1.png", 10)
    found = data_set(str(tmp_path), ["test"], SHAPE)
    np.testing.assert_array_equal(found.splits["test"].labels, [0, 1, 2])
    save_image(tmp_path / "test" / "dog" / "1.png", 10)
    with pytest.raises(UserError, match="received also \\['dog'\\]"):
        data_set(str(tmp_path), ["test"], SHAPE)


@pytest.mark.parametrize("name", ["no/such/folder", "mine.csv"])
def test_what_is_no_data_is_refused(name):
    with pytest.raises(UserError, match=r"neither digits nor an .npz file nor a folder; tfds"):
        data_set(name, ["test"], SHAPE)


def test_images_beyond_the_pixel_range_are_refused(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x_test=np.full((3, 8, 8, 3), 7.0), y_test=np.array([0, 1, 1]))
    with pytest.raises(UserError, match="floats in"):
        data_set(str(file), ["test"], SHAPE)


def test_one_folder_of_classes_is_not_both_training_and_test_images(tmp_path):
    save_image(tmp_path / "cat" / "1.png", 10)
    assert len(data_set(str(tmp_path), ["test"], (8, 8, 3)).splits["test"]) == 1
    with pytest.raises(UserError, match="both are asked for"):
        data_set(str(tmp_path), ["test", "train"], (8, 8, 3))


def test_a_folder_needs_square_images(tmp_path):
    save_image(tmp_path / "cat" / "1.png", 10)
    with pytest.raises(UserError, match="square"):
        data_set(str(tmp_path), ["test"], (8, 6, 3))
