"""Sets of tensorflow-datasets that do not fit into memory are read by index, and are what they were."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from data.test_tfds_reader import any_size, prepared, taller

from awp_tf.data import records, tfds_source
from awp_tf.data.stored import in_memory
from awp_tf.infra.errors import UserError

SMALL = 1e-6  # GiB: room for a few images


def same(one, other):
    np.testing.assert_array_equal(np.asarray(one.images), np.asarray(other.images))
    np.testing.assert_array_equal(one.labels, other.labels)


def test_a_converted_set_gives_the_same_images_and_labels_in_the_same_order(tmp_path, capsys):
    where = prepared(tmp_path)
    held, stored = tfds_source(*where), tfds_source(*where, memory_gib=SMALL)
    assert in_memory(held.train.images)
    assert not in_memory(stored.train.images)
    same(held.train, stored.train)
    same(held.test, stored.test)
    said = capsys.readouterr().out
    assert "mine (train): more than memory has room for; written once as ArrayRecord files to" in said
    assert "mine (train): 40 images, 0.0 GiB: read by index from" in said
    again = tfds_source(*where, memory_gib=SMALL)
    assert "written" not in capsys.readouterr().out
    assert again.identity == stored.identity
    same(held.train, again.train)  # labels come from the file beside the records now
    assert not list(tmp_path.rglob(".awp_tf*"))


def test_several_files_are_taken_by_turns_as_tensorflow_datasets_does(tmp_path):
    where = prepared(tmp_path, shards=2)
    assert len(list(tmp_path.rglob("mine-train.tfrecord*"))) == 2
    same(tfds_source(*where).train, tfds_source(*where, memory_gib=SMALL).train)
    assert len(list(tmp_path.rglob("mine-train.array_record*-of-00002"))) == 2


def test_a_set_prepared_as_array_record_is_read_whole_where_it_fits(tmp_path):
    where = prepared(tmp_path, file_format="array_record")
    held, stored = tfds_source(*where), tfds_source(*where, memory_gib=SMALL)
    assert in_memory(held.train.images)
    assert not in_memory(stored.train.images)
    same(held.train, stored.train)
    assert not list(tmp_path.rglob("*.tfrecord*"))


def test_images_of_several_sizes_are_resized_or_need_a_size(tmp_path):
    where = prepared(tmp_path, image=any_size, pixels=taller)
    same(tfds_source(*where, size=8).test, tfds_source(*where, size=8, memory_gib=SMALL).test)
    with pytest.raises(UserError, match=r"images of several sizes are resized with tfds_source.size"):
        np.asarray(tfds_source(*where, memory_gib=SMALL).train.images)


@pytest.mark.parametrize("lengths", [[50], [40] * 3, [33, 7, 61] * 8])
def test_order_is_that_of_tensorflow_datasets(lengths):
    names = tf.data.Dataset.range(len(lengths))
    starts = np.cumsum([0, *lengths])
    expected = names.interleave(
        lambda i: tf.data.Dataset.range(tf.gather(starts, i), tf.gather(starts, i + 1)),
        cycle_length=16,
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    np.testing.assert_array_equal(records.order(lengths), list(expected.as_numpy_iterator()))


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    where = prepared(tmp_path)
    monkeypatch.setattr(records.importlib, "import_module", lambda name: __import__("no_such_module_at_all"))
    with pytest.raises(UserError, match=r"pip install 'awp_tf\[array-record\]'") as error:
        tfds_source(*where, memory_gib=SMALL)
    assert "\n" not in str(error.value)


def test_a_broken_record_is_one_line(tmp_path):
    where = prepared(tmp_path, file_format="array_record")
    file = next(pathlib.Path(where[1]).rglob("mine-train.array_record-*"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"mine \(train\): expected readable ArrayRecord files") as error:
        tfds_source(*where, memory_gib=SMALL)
    assert "\n" not in str(error.value)
