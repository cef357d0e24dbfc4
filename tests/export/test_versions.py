"""Version folders."""

import pytest

from awp_tf.export.versions import staging, versions
from awp_tf.infra.errors import UserError


def make(model, version=None, keep=None):
    with staging(model, version, keep) as (folder, number):
        (folder / "saved_model.pb").write_text("x")
        assert not (model / str(number)).exists()  # a server sees it whole or not at all
        assert number not in versions(model)
    return number


def test_the_next_free_number_is_taken_and_old_versions_stay(tmp_path):
    model = tmp_path / "net"
    assert [make(model) for _ in range(3)] == [1, 2, 3]
    assert make(model, 7) == 7
    assert make(model) == 8
    assert versions(model) == [1, 2, 3, 7, 8]
    assert {path.name for path in model.iterdir()} == {".lock", "1", "2", "3", "7", "8"}


def test_only_the_newest_are_kept_where_asked_for(tmp_path):
    model = tmp_path / "net"
    for _ in range(4):
        make(model)
    make(model, keep=2)
    assert versions(model) == [4, 5]
    make(model, 1, keep=1)  # an older number than what is there: what was asked for stays
    assert versions(model) == [1, 5]


@pytest.mark.parametrize("version", [0, -1, 2])
def test_no_version_and_an_existing_one_are_refused(tmp_path, version):
    make(tmp_path / "net", 2)
    with pytest.raises(UserError, match="version: "):
        make(tmp_path / "net", version)
    assert versions(tmp_path / "net") == [2]


def test_keep_has_to_be_a_number(tmp_path):
    with pytest.raises(UserError, match="keep: "):
        make(tmp_path / "net", keep=0)
    assert not (tmp_path / "net").exists()


def test_a_failure_leaves_nothing(tmp_path):
    def fail(model):
        with staging(model, None, None) as (folder, _):
            (folder / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail(tmp_path / "net")
    assert not (tmp_path / "net").exists()
    make(tmp_path / "net")
    with pytest.raises(OSError, match="disk full"):
        fail(tmp_path / "net")
    assert {path.name for path in (tmp_path / "net").iterdir()} == {".lock", "1"}


def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    (tmp_path / "net" / ".staging").mkdir(parents=True)
    (tmp_path / "net" / ".staging" / "half").write_text("x")
    make(tmp_path / "net")
    assert {path.name for path in (tmp_path / "net" / "1").iterdir()} == {"saved_model.pb"}


def test_a_target_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        make(tmp_path / "file" / "net")
