"""Images that are not in memory give the same batches, digests and shares as those that are."""

import concurrent.futures
import pathlib
import subprocess
import sys
import threading

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from data.test_tfds_reader import prepared
from helpers import tiny_trainer
from training.test_loop import make_loop

from awp_tf.attacks import FGSM
from awp_tf.data import Batches, MixedBatches, hold_out, image_folder, npy, npz, ordered, tfds_source
from awp_tf.data.batches import spread
from awp_tf.data.splits import Split
from awp_tf.data.stored import Chosen, Decoded, in_memory
from awp_tf.evaluation.accuracy import evaluate
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from awp_tf.threats import Linf

SMALL = 1e-9  # GiB: nothing fits


@pytest.fixture
def folder(tmp_path, rng):
    return image_files(tmp_path, rng)


@pytest.fixture
def file(tmp_path, rng):
    return array_files(tmp_path, rng)


def image_files(tmp_path, rng):
    for part, count in (("train", 24), ("test", 8)):
        for i in range(count):
            file = tmp_path / "images" / part / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(file)
    return tmp_path / "images"


def array_files(tmp_path, rng):
    arrays = {}
    for part, count in (("train", 40), ("test", 12)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 4
    np.savez(tmp_path / "set.npz", **arrays)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path / "set.npz"


SOURCES = {
    "folder": lambda folder, file, gib: image_folder(str(folder), size=8, memory_gib=gib),
    "npz": lambda folder, file, gib: npz(str(file), memory_gib=gib),
    "npy": lambda folder, file, gib: npy(str(file.parent), memory_gib=gib),
    "tfds": lambda folder, file, gib: tfds_source(*prepared(file.parent), memory_gib=gib),
    "array_record": lambda folder, file, gib: tfds_source(
        *prepared(file.parent, file_format="array_record"), memory_gib=gib
    ),
}


@pytest.fixture(scope="module", params=SOURCES)
def pair(request, tmp_path_factory):
    """A source in memory, and the same one where it is."""
    place, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    folder, file = image_files(place, rng), array_files(place, rng)
    held, stored = (SOURCES[request.param](folder, file, gib) for gib in (None, SMALL))
    assert in_memory(held.train.images)
    assert not in_memory(stored.train.images)
    return held, stored


def same(one, other):
    for (x, y), (a, b) in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def test_batches_are_the_same(pair):
    held, stored = pair
    for source_batches in (
        [Batches(s.train, 8, seed=3).dataset(0, 7) for s in pair],
        [ordered(s.test, 5) for s in pair],
    ):
        same(*source_batches)
    extra = Split(held.train.images[:5], held.train.labels[:5])
    same(*(MixedBatches(split=s.train, batch_size=8, extra=extra).dataset(0, 5) for s in pair))
    assert (held.shape, held.classes, held.class_names) == (stored.shape, stored.classes, stored.class_names)


def test_shares_of_a_split_are_the_same(pair):
    for cut in (
        lambda s: hold_out(s.train, 10, seed=1)[0],
        lambda s: hold_out(s.train, 10, seed=1)[1].take(slice(2, 7)),
        lambda s: spread(s.train, 5),
        lambda s: s.train.take(np.isin(s.train.labels, [1])),
    ):
        held, stored = map(cut, pair)
        assert stored.images.shape == held.images.shape
        np.testing.assert_array_equal(np.asarray(stored.images), held.images)
        np.testing.assert_array_equal(stored.images[1:3], held.images[1:3])
        np.testing.assert_array_equal(stored.images[0], held.images[0])
        np.testing.assert_array_equal(stored.labels, held.labels)
        assert isinstance(stored.images, Chosen)


def test_what_is_not_in_memory_has_one_digest(pair):
    _, stored = pair
    rows = np.array([3, 1, 5])
    assert stored.train.digest() == stored.train.digest()
    assert stored.train.take(rows).digest() == stored.train.take(rows).digest()
    assert stored.train.take(rows).digest() != stored.train.take(rows[::-1]).digest()


def test_evaluation_sees_the_same(pair):
    shape = pair[0].shape
    network = small_cnn(shape=shape, classes=pair[0].classes, width=2)
    accuracies = [evaluate(network, ordered(s.test, 5), {"fgsm": FGSM(Linf(0.1))}) for s in pair]
    assert accuracies[0] == accuracies[1]
    places = np.array([4, 0, 7])
    np.testing.assert_array_equal(*(s.test.images[places] for s in pair))  # as an audit reads them
    np.testing.assert_array_equal(*(np.asarray(spread(s.test, 3).images) for s in pair))  # as an export does


def test_only_what_is_asked_for_is_decoded(folder):
    source, read = image_folder(str(folder), 8, memory_gib=SMALL), []
    decode = source.test.images._decode
    source.test.images._decode = lambda file: read.append(file) or decode(file)
    list(ordered(spread(source.test, 3), 2))
    assert len(read) == 3


def test_a_file_has_one_digest_wherever_it_is_read(file):
    assert npz(str(file)).identity == npz(str(file), memory_gib=SMALL).identity
    folder = str(file.parent)
    assert npy(folder).identity == npy(folder, memory_gib=SMALL).identity == npz(str(file)).identity


def test_a_folder_that_changes_is_noticed(folder):
    before, in_memory = (image_folder(str(folder), 8, memory_gib=gib).identity for gib in (SMALL, None))
    assert set(before) & set(in_memory) == {"class names", "classes"}  # so that a smaller machine can go on
    assert (
        before["training files"].split(", SHA")[0] == f"{in_memory['training images'].split(',')[0]}, names and sizes"
    )
    assert before == image_folder(str(folder), 8, memory_gib=SMALL).identity
    changed = sorted((folder / "train" / "a").iterdir())[0]
    PIL.Image.new("RGB", (30, 30), "red").save(changed)
    assert image_folder(str(folder), 8, memory_gib=SMALL).identity != before


def test_what_is_done_is_said(folder, file, capsys):
    image_folder(str(folder), 8, memory_gib=SMALL)
    npz(str(file), memory_gib=SMALL)
    said = capsys.readouterr().out
    assert "train: 24 images, 0.0 GiB: decoded when they are needed, 0.0 GiB of them kept in memory" in said
    assert "set.npz (train): 40 images, 0.0 GiB: read from the file batch by batch" in said


def test_no_more_is_kept_than_there_is_room_for(tmp_path):
    read = []

    def decode(file):
        read.append(file.name)
        return np.zeros((2, 2, 1), np.uint8)

    images = Decoded([pathlib.Path(str(i)) for i in range(10)], decode, (2, 2, 1), 3 * 4 + 1, str)
    for _ in range(3):
        assert images[:].shape == (10, 2, 2, 1)
    assert len(images._kept) == 3
    assert len(read) == 3 + 3 * 7


def test_threads_that_decode_at_once_keep_no_more_than_there_is_room_for():
    meeting = threading.Barrier(8)

    def decode(item):
        meeting.wait(10)  # all have seen that there is room
        return np.full((2, 2, 1), item, np.uint8)

    images = Decoded(list(range(8)), decode, (2, 2, 1), 2 * 4, str)
    threads = concurrent.futures.ThreadPoolExecutor(8)
    found = list(threads.map(images._image, range(8)))
    assert [int(image[0, 0, 0]) for image in found] == list(range(8))
    assert len(images._kept) == 2


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda folder: (folder / "y_test.npy").unlink(),
            r"y_test\.npy: expected a numeric array that np\.save wrote; ",
        ),
        (lambda folder: (folder / "x_train.npy").write_bytes(b"none"), r"x_train\.npy: expected a numeric array"),
        (lambda folder: np.save(folder / "y_train.npy", np.array(["a"] * 40)), "labels to be whole numbers"),
    ],
)
def test_a_folder_of_arrays_that_is_none_is_one_line(break_it, message, file):
    break_it(file.parent)
    with pytest.raises(UserError, match=message) as error:
        npy(str(file.parent))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_decoded_ends_training_with_its_name(folder):
    source = image_folder(str(folder), 8, 1, memory_gib=SMALL)
    broken = sorted((folder / "train" / "b").iterdir())[3]
    broken.write_bytes(b"no image")
    loop, _ = make_loop(folder.parent / "run", tiny_trainer(), batches=Batches(source.train, 8))
    with pytest.raises(UserError, match=f"{broken.name}: expected a PNG, JPEG, WebP, BMP or GIF image") as error:
        loop.run()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [0, -1, "8"])
def test_memory_is_a_number_above_zero(wrong, file):
    with pytest.raises(UserError, match=r"npz.memory_gib: expected a number > 0"):
        npz(str(file), memory_gib=wrong)


@pytest.mark.slow
def test_memory_stays_bounded_over_5000_images(tmp_path):
    """1.4 GiB decoded; a first batch within seconds."""
    small = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    for part, count in (("train", 5_000), ("test", 50)):
        for i in range(count):
            file = tmp_path / "big" / part / str(i % 10) / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(small[i % 50]).resize((96, 96)).save(file)
    code = f"""
import pathlib, re, time
import awp_tf.data as data
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 2**20
import tensorflow as tf
tf.constant(0)
before, start = peak(), time.perf_counter()
source = data.image_folder({str(tmp_path / "big")!r}, size=320, memory_gib=0.1)
batches = data.Batches(source.train, 16)
stream = iter(batches.dataset(0, 312))
next(stream)
first = time.perf_counter() - start
for _ in stream:
    pass
print(peak() - before, first)
"""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    grown, seconds = map(float, done.stdout.splitlines()[-1].split())
    assert grown < 0.6  # GiB, of 1.43 decoded
    assert seconds < 15


def test_a_reader_that_fails_for_another_reason_is_no_user_error(folder):
    source = image_folder(str(folder), 8, memory_gib=SMALL)
    source.train.images._decode = lambda file: 1 / 0
    with pytest.raises(tf.errors.OpError):
        next(iter(ordered(source.train, 4)))
