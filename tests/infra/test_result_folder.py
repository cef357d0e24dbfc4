import filelock
import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.result_folder import ResultFolder, lock


def folder(path, **fingerprint):
    return ResultFolder(path, "result.json", "a result", {"data": "d", "machine": "m", **fingerprint}, ("data",))


def test_work_is_gone_on_with_and_finished_by_its_last_file(tmp_path):
    place = folder(tmp_path / "out")
    assert place.finished() is None
    with place.open():
        (place.state / "half").write_text("1")
    assert place.finished() is None
    assert (place.state / "half").exists()
    with place.open():
        place.finish({"value": 1, "fingerprint": dict(place.fingerprint)})
    assert place.finished()["value"] == 1
    assert {file.name for file in place.path.iterdir()} == {".lock", "result.json"}


def test_unfinished_work_of_anything_else_is_refused_and_a_finished_result_of_other_data(tmp_path):
    with folder(tmp_path).open():
        pass
    with pytest.raises(UserError, match=r"holds a result of another machine \(there: m; here: n\)"):
        folder(tmp_path, machine="n").finished()
    folder(tmp_path).finish({"fingerprint": {"data": "d", "machine": "m"}})
    assert folder(tmp_path, machine="n").finished() is not None
    with pytest.raises(UserError, match=r"holds a result of another data \(there: d; here: e\)"):
        folder(tmp_path, data="e").finished()


def test_foreign_folders_and_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="expected a new or empty folder, or a result to go on with"):
            folder(path).finished()
    (tmp_path / "result.json").write_text("{not json")
    with pytest.raises(UserError, match="expected a result, which this is not"):
        folder(tmp_path).finished()
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_what_a_killed_process_may_leave_is_nobodys(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".figure.png.part1234.png").touch()
    assert folder(tmp_path).finished() is None
    with folder(tmp_path).open():
        assert not list(tmp_path.glob("*.png"))


def test_a_folder_has_one_user_at_a_time(tmp_path):
    with lock(tmp_path), pytest.raises(UserError, match="another process is working in it"), lock(tmp_path):
        pass
    with lock(tmp_path):  # and free afterwards
        pass


@pytest.mark.parametrize("error", [NotImplementedError("no locks here"), OSError(37, "No locks available")])
def test_a_disk_without_locks_is_said_and_work_goes_on(error, tmp_path, monkeypatch, capsys):
    def fail(self, *arguments, **settings):
        raise error

    monkeypatch.setattr(filelock.FileLock, "_acquire", fail)
    (tmp_path / ".work.part12345678").touch()  # perhaps another process writes it now
    with lock(tmp_path):
        (tmp_path / "work").touch()
        assert (tmp_path / ".work.part12345678").exists()
    assert f"warning: {tmp_path} cannot be locked (" in capsys.readouterr().out
    assert (tmp_path / "work").exists()
