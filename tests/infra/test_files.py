"""Files that are there whole or not at all."""

import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import (
    atomic_write,
    is_part,
    local,
    read_arrays,
    remove_parts,
    without_wildcards,
    write_arrays,
    write_bytes,
    write_text,
)


def test_content_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        write_text(tmp_path / "a.txt", content)
        write_bytes(tmp_path / "b.bin", content.encode())
    assert {f.name for f in tmp_path.iterdir()} == {"a.txt", "b.bin"}
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b.bin").read_bytes().decode() == "two"


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def write():
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"


def test_two_who_write_one_file_do_not_meet(tmp_path):
    with atomic_write(tmp_path / "a.txt") as one, atomic_write(tmp_path / "a.txt") as other:
        assert one != other
        assert is_part(one)
        one.write_text("one")
        other.write_text("other")
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "one"


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


def test_paths_are_those_of_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    assert str(local("~/run")) == "/home/anna/run"
    assert str(local("runs/a b")) == "runs/a b"
    for text in ("gs://bucket/run", "S3://x", "hdfs://x", "https://x/y"):
        with pytest.raises(UserError, match=f"{text}: expected a path on this machine"):
            local(text)
    with pytest.raises(UserError, match="~nobody_at_all: expected a path"):
        local("~nobody_at_all")


@pytest.mark.parametrize("name", ["lr[0.1]", "a*b", "what?"])
def test_a_way_to_a_folder_whose_name_is_no_pattern(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.txt").write_text("it")
    with without_wildcards(tmp_path / name) as way:
        assert not set("[]*?") & set(str(way))
        assert (way / "a.txt").read_text() == "it"
    with without_wildcards(tmp_path) as way:
        assert way == tmp_path
    assert (tmp_path / name / "a.txt").exists()


def test_what_a_killed_process_left_is_known_and_what_failed_leaves_nothing(tmp_path):
    def write():
        with atomic_write(tmp_path / "a.txt") as part:
            part.write_text("half")
            assert is_part(part)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())
    assert not is_part(tmp_path / "a.txt")


def test_only_such_files_are_removed_and_only_in_the_folder_itself(tmp_path):
    (tmp_path / "state").mkdir()
    kept = ["a.txt", ".lock", "state/.a.txt.part12345678.txt"]
    for name in (*kept, ".a.txt.part12345678.txt", ".b.part87654321"):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()) == sorted(kept)
    remove_parts(tmp_path / "none")
