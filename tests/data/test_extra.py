"""Files of extra images: pseudo-labelled or generated."""

import itertools
import json
import pathlib
import pickle
import re
import tracemalloc

import numpy as np
import pytest

from awp_tf.data import Batches, ExtraData, MixedBatches, NoExtra, PadCropFlip, Source, Split
from awp_tf.data.extra import check_parts, read
from awp_tf.infra.errors import UserError

RNG = np.random.default_rng(0)
COUNT = 4000


def split(count, dtype=np.uint8):
    images = RNG.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return Split(
        images if dtype == np.uint8 else (images / 255).astype(dtype), (np.arange(count) % 10).astype(np.int32)
    )


LIKE = Source("photos", split(40), split(20), 10, [f"class {k}" for k in range(10)])
GENERATED = split(COUNT)


def save(path, compress=False, **changes):
    """In the form of the generated sets of Wang et al.: labels of 64 bits."""
    arrays = {"image": GENERATED.images, "label": GENERATED.labels.astype(np.int64), **changes}
    (np.savez_compressed if compress else np.savez)(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


def origin(**settings):
    return np.array(json.dumps({"network": "best", "classes": 10, "class names": list(LIKE.class_names), **settings}))


@pytest.mark.parametrize("compress", [False, True])
def test_generated_sets_are_read_without_holding_them_twice(tmp_path, compress):
    path = save(tmp_path / "1m.npz", compress)
    tracemalloc.start()
    try:
        found = read(path, LIKE)
        found.digest()
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert memory < (1.2 if compress else 0.1) * GENERATED.images.nbytes
    assert found.digest() == GENERATED.digest()


def test_batches_read_the_file_where_it_is(tmp_path):
    batches = Batches(LIKE.train, 8, PadCropFlip(), seed=3, replicas=2)
    made = ExtraData(save(tmp_path / "a.npz"), ratio=0.25)(batches, LIKE)
    assert isinstance(made, MixedBatches)
    assert isinstance(made.extra.images, np.memmap)
    assert (made.split, made.augment, made.seed, made.replicas, made.ratio) == (LIKE.train, PadCropFlip(), 3, 2, 0.25)
    assert [x.shape for x, _ in made.dataset(0, 5)] == [(8, 32, 32, 3)] * 5


def held():
    """MB that belong to this process alone: pages of mapped files do not."""
    (line,) = re.findall(r"^RssAnon:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(line) / 1000


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="only Linux says what a process holds")
def test_a_file_of_extra_images_is_not_copied_to_draw_from_it(tmp_path):
    many = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(150_000, 32, 32, 3))  # 460 MB, and none on the disk
    extra = Split(many, np.zeros(len(many), np.int32))
    batches = MixedBatches(split=LIKE.train, batch_size=16, extra=extra)
    list(Batches(LIKE.train, 16).dataset(0, 2))
    before, batch = held(), iter(batches.dataset(0, 20))
    list(itertools.islice(batch, 10))
    assert held() - before < 100


def test_without_extra_data_batches_are_what_they_were():
    batches = Batches(LIKE.train, 8)
    assert NoExtra()(batches, LIKE) is batches


@pytest.mark.parametrize(
    "made", [{}, {"provenance": origin()}, {"provenance": origin(**{"class names": []})}, {"note": np.array("mine")}]
)
def test_pseudo_labels_of_these_classes_are_taken(tmp_path, made):
    assert len(read(save(tmp_path / "a.npz", **made), LIKE)) == COUNT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": origin(classes=100)}, "received those of another data set: classes 100, not 10; label the"),
        (
            {"provenance": origin(**{"class names": ["cat"]})},
            r"another data set: class names \['cat'\], not \['class 0'",
        ),
        ({"provenance": np.array("{")}, "expected provenance in JSON"),
        ({"provenance": np.array("[]")}, "expected provenance to be names and values, received list"),
        ({"label": None}, "expected an .npz file with image and label, received image; python -m tools.pseudo_label"),
        ({"image": GENERATED.images[:, :28]}, r"uint8 \[32, 32, 3\], received uint8 \[28, 32, 3\]"),
        ({"image": GENERATED.images.astype(np.float32)}, r"those of photos, uint8 \[32, 32, 3\], received float32"),
        ({"image": GENERATED.images[:-1]}, r"received shapes \(3999, 32, 32, 3\) and \(4000,\)"),
        ({"label": np.full(COUNT, 10)}, r"expected labels in 0\.\.9, the classes of photos, received 10"),
        ({"label": np.full(COUNT, -1)}, "expected labels >= 0, received -1"),
        ({"label": np.ones(COUNT)}, "labels to be whole numbers, received float64"),
        ({"label": np.array([None] * COUNT)}, "expected an .npz file with a plain array 'label'; Object arrays"),
    ],
)
def test_what_does_not_belong_to_the_data_is_one_line(tmp_path, changes, message):
    path = save(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=message) as error:
        ExtraData(path)(Batches(LIKE.train, 8), LIKE)
    assert "\n" not in str(error.value)


def test_the_pickle_of_the_original_set_is_refused_unopened(tmp_path):
    (tmp_path / "ti_500K.pickle").write_bytes(pickle.dumps({"data": np.zeros(3)}))
    with pytest.raises(UserError, match=r"ti_500K\.pickle: expected an \.npz file"):
        read(str(tmp_path / "ti_500K.pickle"), LIKE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"ExtraData\.path: expected an \.npz file with extra images, received ''; name one, or train without"),
        ({"path": "a.npz", "ratio": 0}, r"ExtraData\.ratio: expected a number in \(0, 1\), received 0"),
        ({"path": "a.npz", "ratio": 1}, r"ExtraData\.ratio: expected a number in \(0, 1\), received 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        ExtraData(**settings)


def test_floats_are_checked_a_few_at_a_time():
    images = np.zeros((9000, 8, 8, 1), np.float32)
    labels = np.zeros(9000, np.int32)
    check_parts("it", Split(images, labels))
    images[8999, 0, 0, 0] = 1.5
    with pytest.raises(UserError, match=r"it: expected uint8 images in \[0, 255\] or floats in \[0, 1\]"):
        check_parts("it", Split(images, labels))
    with pytest.raises(UserError, match="it: expected images"):
        check_parts("it", Split(images, labels[:4096]))
