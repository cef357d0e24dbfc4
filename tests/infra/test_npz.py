"""Large arrays in .npz files."""

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from awp_tf.infra import npz
from awp_tf.infra.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (4000, 32, 32, 3), np.uint8)  # 12 MB
LABELS = np.arange(4000) % 10


def peak(function):
    """(What function returns, the most memory it held)."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_stored_plainly_stays_in_the_file(tmp_path):
    np.savez(tmp_path / "a.npz", label=LABELS, image=IMAGES)
    found, memory = peak(lambda: npz.read(tmp_path / "a.npz", "image"))
    assert memory < 1e6
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, IMAGES)
    np.testing.assert_array_equal(npz.read(tmp_path / "a.npz", "label"), LABELS)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_what_is_compressed_is_held_once(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", label=LABELS, image=IMAGES)
    found, memory = peak(lambda: npz.read(tmp_path / "a.npz", "image"))
    assert memory < 1.2 * IMAGES.nbytes
    np.testing.assert_array_equal(found, IMAGES)


def test_any_zip_of_npy_files_is_read(tmp_path):
    """A file's own header may be longer than the one in the table, and its array in another order."""
    content = io.BytesIO()
    np.save(content, np.asfortranarray(IMAGES[:5]))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        info = zipfile.ZipInfo("other.npy")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, content.getvalue())
        with archive.open("image.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, IMAGES[:7], version=(2, 0))
        np.lib.format.write_array(archive.open("empty.npy", "w"), IMAGES[:0])
    assert npz.names(tmp_path / "a.npz") == ["other", "image", "empty"]
    for name, count in (("other", 5), ("image", 7), ("empty", 0)):
        np.testing.assert_array_equal(npz.read(tmp_path / "a.npz", name), IMAGES[:count])


def test_what_is_written_is_what_numpy_reads_and_rows_are_copied_a_few_at_a_time(tmp_path):
    rows = np.arange(0, 4000, 2)
    arrays = {"image": npz.Chosen(IMAGES, rows), "label": LABELS, "text": np.array("ü")}
    _, memory = peak(lambda: npz.write(tmp_path / "a.npz", arrays))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["image"], IMAGES[::2])
        assert str(data["text"]) == "ü"
    npz.write(tmp_path / "b.npz", {**arrays, "image": IMAGES[::2]})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert memory < 2 * IMAGES.nbytes
    many = np.broadcast_to(IMAGES, (10, *IMAGES.shape)).reshape(-1, 1024)  # 120 MB
    assert peak(lambda: npz.write(tmp_path / "c.npz", {"a": npz.Chosen(many, np.arange(len(many)))}))[1] < 50e6


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("content", ["objects", "pickle", "text", "missing", "damaged"])
def test_nothing_is_unpickled_and_what_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "a.npz"
    if content == "objects":
        np.savez(path, image=np.array([Trap()], object))
    elif content == "damaged":
        np.savez_compressed(path, image=IMAGES[:9])
        path.write_bytes(path.read_bytes()[:200] + bytes(100) + path.read_bytes()[300:])
    elif content != "missing":
        path.write_bytes(pickle.dumps({"image": Trap()}) if content == "pickle" else b"image")
    with pytest.raises(UserError, match=r"a\.npz: expected an \.npz file") as error:
        npz.read(path, "image")
    assert "\n" not in str(error.value)


def test_what_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npz.write(tmp_path / "a.npz", {"label": LABELS, "image": np.array([None])})
    assert list(tmp_path.iterdir()) == []
