import time
import urllib.error

import numpy as np
import pytest

from awp_tf.checks import UserError
from awp_tf.data import tfds_reader, tfds_source


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
