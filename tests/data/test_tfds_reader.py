import time
import urllib.error

import numpy as np
import pytest
from helpers import tiny_split

from awp_tf.data import tfds_reader, tfds_source
from awp_tf.infra.errors import UserError


@pytest.mark.cifar10
def test_cifar10_is_read_whole():
    source = tfds_source("cifar10")
    assert source.shape == (32, 32, 3)
    assert (len(source.train), len(source.test), source.classes) == (50_000, 10_000, 10)
    assert source.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(np.bincount(source.train.labels), 5000)
    np.testing.assert_allclose(source.train.images.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)


def test_an_unknown_name_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match=r"received 'cifar1000'\. Did you mean 'cifar100'\?"):
        tfds_source("cifar1000", str(tmp_path))


def unreachable(*_, **__):
    raise urllib.error.URLError("no network")


def test_without_data_and_network_it_says_so_at_once_and_names_the_embedded_data(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_reader.urllib.request, "urlopen", unreachable)
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"cifar100: not prepared in .* no network .*gin/digits\.gin"):
        tfds_source("cifar100", str(tmp_path))
    assert time.perf_counter() - start < 10
    assert not list(tmp_path.rglob("*.tfrecord*"))


def test_a_network_that_never_answers_is_no_network(monkeypatch):
    monkeypatch.setattr(tfds_reader, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(tfds_reader.urllib.request, "urlopen", lambda *_, **__: time.sleep(3))
    start = time.perf_counter()
    assert not tfds_reader._online()
    assert time.perf_counter() - start < 2.5


def test_any_answer_is_a_network(monkeypatch):
    def forbidden(*_, **__):
        raise urllib.error.HTTPError("", 403, "", None, None)

    monkeypatch.setattr(tfds_reader.urllib.request, "urlopen", forbidden)
    assert tfds_reader._online()


def test_what_a_server_answers_in_place_of_the_data_is_one_line(monkeypatch):
    class Builder:
        data_dir = "/data"

        def download_and_prepare(self):
            raise RuntimeError("Failed to get url https://data.example\nHTTP code: 503.")

    monkeypatch.setattr(tfds_reader, "_online", lambda: True)
    with pytest.raises(UserError, match=r"^mine: could not be downloaded to /data; Failed to get url .*example$"):
        tfds_reader._download(Builder(), "mine")


def prepared(
    folder,
    *,
    image=None,
    label=None,
    pixels=lambda p, number: p,
    labels=int,
    keys=("image", "label"),
    file_format=None,
    shards=None,
    others=("test",),
    unlabelled=(),
):
    """The name of a small prepared set in folder, real in every respect."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": image(tfds.features) if image else tfds.features.Image(shape=(8, 8, 1)),
            "label": label(tfds.features) if label else tfds.features.ClassLabel(names=["a", "b", "c", "d"]),
        }
    )

    class Mine(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

        def _split_generators(self, manager):
            counts = {"train": 40} | {name: 20 - place for place, name in enumerate(others)}
            return {name: self._generate_examples(name, count) for name, count in counts.items()}

        def _generate_examples(self, name, count):
            split = tiny_split(count, 0 if name == "train" else 7)
            for number, (x, y) in enumerate(
                zip(np.round(split.images * 255).astype(np.uint8), split.labels, strict=True)
            ):
                yield number, {"image": pixels(x, number), "label": -1 if name in unlabelled else labels(y)}

    config = tfds.download.DownloadConfig(num_shards=shards)
    Mine(data_dir=folder).download_and_prepare(file_format=file_format, download_config=config)
    return "mine", str(folder)


def nearest(split):
    """How far each image is from the nearest one that was written, and its label, which has to be that one's."""
    written = tiny_split(20, 7)
    for image, label in zip(split.images.astype(float), split.labels, strict=True):
        away = np.abs(np.round(written.images * 255) - image).mean((1, 2, 3))
        assert written.labels[away.argmin()] == label
        yield away.min(), label


def test_a_prepared_set_of_ones_own_is_read(tmp_path):
    source = tfds_source(*prepared(tmp_path))
    assert sorted(nearest(source.test)) == [(0.0, label) for label in sorted(tiny_split(20, 7).labels)]
    assert source.class_names == ("a", "b", "c", "d")


def test_where_there_are_no_test_images_those_of_validation_are_taken(tmp_path):
    source = tfds_source(*prepared(tmp_path, others=("validation",)))
    assert {distance for distance, _ in nearest(source.test)} == {0.0}
    assert source.validation is None


def test_validation_images_beside_a_test_are_kept_apart(tmp_path):
    source = tfds_source(*prepared(tmp_path, others=("test", "validation")))
    assert [len(split) for split in (source.train, source.validation, source.test)] == [40, 19, 20]


def test_test_images_without_labels_are_left_out(tmp_path):
    source = tfds_source(*prepared(tmp_path, others=("test", "validation"), unlabelled=("test",)))
    assert (len(source.test), source.validation) == (19, None)


def taller(pixels, number):
    return np.repeat(pixels, 1 + number % 2, axis=0)


def any_size(features):
    return features.Image(shape=(None, None, 1))


def test_images_of_several_sizes_are_never_padded_but_resized_where_a_size_is_said(tmp_path):
    where = prepared(tmp_path, image=any_size, pixels=taller)
    with pytest.raises(UserError, match=r"expected readable images of one size \(.* resized with tfds_source\.size"):
        tfds_source(*where)
    source = tfds_source(*where, size=8)
    assert source.shape == (8, 8, 1)
    away = sorted(distance for distance, _ in nearest(source.test))
    assert away[:10] == [0.0] * 10  # these had that size
    assert 0 < away[10] <= away[-1] < 20  # those were taller; no black was added


def test_labels_without_names_are_read(tmp_path):
    source = tfds_source(*prepared(tmp_path, label=lambda features: features.Scalar(np.int64)))
    assert (source.classes, source.class_names) == (4, ())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": lambda f: f.Text(), "labels": str}, "expected labels that are whole numbers, one an image"),
        (
            {"label": lambda f: f.Tensor(shape=(4,), dtype=np.float32), "labels": lambda y: np.eye(4, dtype="f4")[y]},
            "expected labels that are whole numbers, one an image",
        ),
        (
            {
                "image": lambda f: f.Image(shape=(8, 8, 1), dtype=np.uint16),
                "pixels": lambda p, number: p.astype(np.uint16) * 257,
            },
            "expected images of 8 bits",
        ),
        ({"keys": None}, "expected an image classification set with splits train and test"),
    ],
    ids=["text", "one-hot", "16 bit", "no keys"],
)
def test_what_is_no_classification_of_8_bit_images_is_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        tfds_source(*prepared(tmp_path, **settings))


@pytest.mark.parametrize("name", ["cifar10:9.9.9", "cifar10/no_such_config"])
def test_a_version_or_configuration_that_is_none_is_one_line(name, tmp_path):
    with pytest.raises(UserError, match=r"tfds_source\.name: expected a data set of tensorflow-datasets") as error:
        tfds_source(name, str(tmp_path))
    assert "\n" not in str(error.value)
