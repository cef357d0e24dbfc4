import pathlib

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from awp_tf.data import Split, digits, image_folder, npy, npz
from awp_tf.data.sources import source_of
from awp_tf.infra.errors import UserError


def arrays(dtype="uint8", count=12, classes=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 6, 6, 3)).astype("uint8")
    images = images if dtype == "uint8" else (images / 255).astype(dtype)
    return images, (np.arange(count) % classes).astype("int64")


def save(path, **changes):
    x, y = arrays()
    contents = {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6], **changes}
    np.savez(path, **{name: value for name, value in contents.items() if value is not None})
    return str(path)


def test_digits_are_real_pixels_in_range():
    source = digits()
    assert source.shape == (8, 8, 1)
    assert (len(source.train), len(source.test), source.classes) == (1437, 360, 10)
    assert 0 == source.train.images.min() < source.train.images.max() == 1


def test_npz_is_read(tmp_path):
    x, y = arrays()
    source = npz(save(tmp_path / "data.npz"))
    np.testing.assert_array_equal(source.train.images, x)
    np.testing.assert_array_equal(source.test.labels, y[:6])
    assert source.classes == 3


def test_npz_without_channels_or_with_a_column_of_labels_is_read_as_keras_saves_it(tmp_path):
    x, y = arrays("float64")
    changes = {"x_train": x[..., 0], "x_test": x[:6, ..., 0], "y_train": y[:, None]}
    source = npz(save(tmp_path / "data.npz", **changes))
    assert source.shape == (6, 6, 1)
    assert source.train.images.dtype == np.float32
    assert source.train.labels.shape == (12,)


def test_pickled_arrays_are_not_opened(tmp_path):
    objects = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(UserError, match=r"data\.npz: expected an \.npz file with numeric arrays .*allow_pickle"):
        npz(save(tmp_path / "data.npz", x_train=objects))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "y_test"),
        ({"x_train": arrays("float32")[0] * 255}, r"expected uint8 images in \[0, 255\] or floats in \[0, 1\]"),
        ({"x_train": arrays("float32")[0] - 0.5}, r"others in \[-0\.5, 0\.5\]; bring \[-1, 1\] there by"),
        ({"x_train": arrays("float32")[0] / 255}, r"none above 0\.0039.*; they were divided by 255 twice"),
        (
            {"x_train": arrays()[0].astype("uint16") * 257},
            r"data\.npz \(train\): expected images of .*, received uint16 up to 65535; divide by .* 65535",
        ),
        (
            {"x_train": np.full((12, 6, 6, 3), np.nan)},
            r"\(train\): expected floats in \[0, 1\], received NaN or infinity in 12 of 12 images",
        ),
        ({"y_train": np.zeros(12, int)}, "expected at least 2 classes"),
        ({"y_train": np.arange(12) - 1}, "expected labels >= 0, received -1"),
        ({"y_test": np.arange(6) + 1}, r"expected labels in 0\.\.2, received 6"),
        ({"y_train": np.zeros(12)}, r"data\.npz \(train\): expected labels to be whole numbers, received float64"),
        ({"x_train": np.zeros((0, 6, 6, 3), "uint8"), "y_train": np.zeros(0, int)}, "N > 0"),
        ({"y_train": np.zeros(5, int)}, "expected images .* and N labels"),
        ({"x_test": np.zeros((6, 5, 5, 3), "uint8")}, "expected alike images"),
    ],
    ids=[
        "missing",
        "255",
        "negative",
        "twice",
        "uint16",
        "nan",
        "one-class",
        "below",
        "above",
        "float",
        "empty",
        "count",
        "shape",
    ],
)
def test_unfit_npz_gets_one_clear_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        npz(save(tmp_path / "data.npz", **changes))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_npz_is_named(tmp_path):
    (tmp_path / "data.npz").write_text("no")
    for path in (tmp_path / "data.npz", tmp_path / "nowhere.npz"):
        with pytest.raises(UserError, match=path.name):
            npz(str(path))


def write_folder(root, names=("cat", "dog"), count=3, parts=("train", "test")):
    rng = np.random.default_rng(0)
    for part in parts:
        for value, name in enumerate(names):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                image = np.clip(rng.normal(60 + 120 * value, 5, (9 + index, 12, 3)), 0, 255).astype("uint8")
                keras.utils.save_img(root / part / name / f"{index}.{'png' if index else 'jpg'}", image, scale=False)


def test_image_folder_is_read_at_one_size(tmp_path):
    write_folder(tmp_path)
    source = image_folder(str(tmp_path), size=8)
    assert source.shape == (8, 8, 3)
    assert source.train.images.dtype == np.uint8
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 1, 1, 1])
    means = source.train.images.mean((1, 2, 3))
    assert (means[:3] < 80).all()
    assert (means[3:] > 160).all()


def test_a_folder_of_classes_alone_is_divided_within_every_class_and_always_alike(tmp_path, capsys):
    write_folder(tmp_path, count=10, parts=("",))
    source = image_folder(str(tmp_path), size=8, test=0.3)
    assert "some are kept for the test: 6 images" in capsys.readouterr().out
    np.testing.assert_array_equal(source.test.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(source.train.labels, [0] * 7 + [1] * 7)
    everything = np.concatenate([source.train.images, source.test.images])
    assert len(np.unique(everything.reshape(20, -1), axis=0)) == 20
    assert image_folder(str(tmp_path), size=8, test=0.3).identity == source.identity
    assert image_folder(str(tmp_path), size=8, test=0.3, memory_gib=1e-9).test.labels.tolist() == [0] * 3 + [1] * 3


def test_a_folder_of_classes_alone_that_cannot_be_divided_is_refused(tmp_path):
    write_folder(tmp_path, count=1, parts=("",))
    with pytest.raises(
        UserError, match=r"expected images to train on and to test on in every class, received 1 of 'cat'"
    ):
        image_folder(str(tmp_path), size=8)
    with pytest.raises(UserError, match=r"image_folder\.test: expected a number in \(0, 1\), received 1"):
        image_folder(str(tmp_path), size=8, test=1)


def test_images_for_training_alone_are_not_taken_for_a_class(tmp_path):
    write_folder(tmp_path, parts=("train",))
    with pytest.raises(UserError, match=r"no classes in test/"):
        image_folder(str(tmp_path), size=8)


def test_a_folder_for_validation_is_one_beside_a_test_and_the_test_without(tmp_path):
    write_folder(tmp_path, parts=("train", "test", "val"))
    (tmp_path / "val" / "cat" / "1.png").unlink()
    source = image_folder(str(tmp_path), size=8)
    assert [len(split) for split in (source.train, source.validation, source.test)] == [6, 5, 6]
    assert set(source.identity) >= {"training images", "validation images", "test images"}
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "wolf")
    with pytest.raises(UserError, match=r"\['cat', 'dog'\] in test/ and \['dog', 'wolf'\] in val/"):
        image_folder(str(tmp_path), size=8)
    (tmp_path / "val" / "wolf").rename(tmp_path / "val" / "cat")
    (tmp_path / "test").rename(tmp_path / "another")
    source = image_folder(str(tmp_path), size=8)
    assert (len(source.test), source.validation) == (5, None)
    assert "validation images" not in source.identity


def test_arrays_for_validation_are_read(tmp_path):
    x, y = arrays()
    source = npz(save(tmp_path / "data.npz", x_val=x[2:9], y_val=y[2:9]))
    np.testing.assert_array_equal(source.validation.images, x[2:9])
    for name, array in {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    assert npy(str(tmp_path)).validation is None
    np.save(tmp_path / "x_val.npy", x[2:9])
    with pytest.raises(UserError, match=r"y_val\.npy: expected a numeric array that np\.save wrote"):
        npy(str(tmp_path))
    np.save(tmp_path / "y_val.npy", y[2:9])
    np.testing.assert_array_equal(npy(str(tmp_path)).validation.labels, y[2:9])
    unlike = save(tmp_path / "data.npz", x_val=x[2:9] / 255, y_val=y[2:9])
    with pytest.raises(UserError, match=r"expected alike images in train and validation, received uint8 .* and float"):
        npz(unlike)
    with pytest.raises(UserError, match=r"expected labels in 0\.\.2, received 5"):
        npz(save(tmp_path / "data.npz", x_val=x[2:9], y_val=y[2:9] + 3))


def test_image_folder_names_the_file_it_cannot_read(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "dog" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(
        UserError, match=r"broken\.png: expected a PNG, JPEG, WebP, BMP or GIF image, which this is not"
    ):
        image_folder(str(tmp_path), size=8)


def test_image_folder_with_other_classes_to_test_is_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(UserError, match=r"expected train/<class>/ and test/<class>/ with the same classes"):
        image_folder(str(tmp_path), size=8)
    with pytest.raises(UserError, match="nowhere: expected a folder of images, but there is none"):
        image_folder(str(tmp_path / "nowhere"), size=8)


def test_a_class_that_has_a_name_has_training_images():
    x, y = arrays()
    split = Split(x, y.astype("int32"))
    with pytest.raises(UserError, match="expected training images of every class, received none of class d"):
        source_of("it", split, split, ["a", "b", "c", "d"])
    source = source_of("it", split, split, ["a", "b", "c"])
    assert source.classes == 3
    assert tf.constant(source.train.labels).dtype == tf.int32


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_image_file_is_read_in_grey_and_in_colour(suffix, channels, tmp_path):
    for part, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        PIL.Image.new("RGB", (9, 9), (200, 200, 200)).save(tmp_path / part / name / f"1.{suffix}")
    images = image_folder(str(tmp_path), size=8, channels=channels).test.images
    assert images.shape == (2, 8, 8, channels)
    np.testing.assert_allclose(images.astype(int), 200, atol=2)


def test_a_folder_with_the_name_of_an_image_is_named(tmp_path):
    for part, name in (("train", "a"), ("test", "a")):
        (tmp_path / part / name / "1.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"1\.png: expected a PNG, JPEG, WebP, BMP or GIF image, which cannot be read"):
        image_folder(str(tmp_path), size=8)


def test_identities_are_no_classes():
    x, y = arrays()
    split = Split(x, (y + 5_000_000).astype("int32"))
    with pytest.raises(
        UserError, match=r"expected labels 0\.\.K-1 that count the classes, received labels up to 5000002"
    ):
        source_of("it", split, split, [])


@pytest.mark.parametrize("keep", [0, 10, 0.3, 0.9, -1])
def test_a_damaged_npz_is_named(keep, tmp_path):
    path = pathlib.Path(save(tmp_path / "data.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"data\.npz: expected an \.npz file") as error:
        npz(str(path))
    assert "\n" not in str(error.value)


def test_channels_first_is_recognised(tmp_path):
    x = np.zeros((12, 3, 32, 32), np.uint8)
    with pytest.raises(UserError, match=r"received \(12, 3, 32, 32\), which looks like \[N, C, H, W\]; transpose"):
        npz(save(tmp_path / "data.npz", x_train=x, x_test=x[:6]))


def test_pixels_of_0_and_1_in_uint8_are_no_grey_levels(tmp_path):
    with pytest.raises(UserError, match=r"expected uint8 images in \[0, 255\], received none above 1; multiply by 255"):
        npz(save(tmp_path / "data.npz", x_train=(arrays()[0] > 9).astype(np.uint8)))
