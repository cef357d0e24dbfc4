"""Files that are there whole or not at all."""

import numpy as np
import pytest

from awp_tf.checks import UserError
from awp_tf.files import read_arrays, replacing, write_arrays, write_bytes, write_text


def test_content_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        write_text(tmp_path / "a.txt", content)
        write_bytes(tmp_path / "b.bin", content.encode())
    assert {f.name for f in tmp_path.iterdir()} == {"a.txt", "b.bin"}
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b.bin").read_bytes().decode() == "two"


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def write():
        with replacing(tmp_path / "a.txt") as part:
            part.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"


def test_arrays_come_back_and_equal_ones_are_equal_bytes(tmp_path):
    arrays = {"a/b": np.arange(3), "text": np.array("x")}
    for name in ("one", "two"):
        write_arrays(tmp_path / f"{name}.npz", arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    found = read_arrays(tmp_path / "one.npz", "a test")
    np.testing.assert_array_equal(found["a/b"], arrays["a/b"])
    assert read_arrays(tmp_path / "none.npz", "a test") is None
    (tmp_path / "one.npz").write_bytes(b"half")
    with pytest.raises(UserError, match="expected a test, which this is not"):
        read_arrays(tmp_path / "one.npz", "a test")
