import os
import subprocess
import sys

import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.run_folder import Run, RunFolder, kept_epochs, parts_of, read_run, require_same_data, trained_on

CONFIG = "EPOCHS = 3\nSEED = 0\n"
DATA = {"class names": ["cat", "dog"], "training images": "40, SHA-256 abc"}


def test_a_new_folder_is_made_only_when_it_is_opened(tmp_path):
    folder = RunFolder.of(tmp_path / "a" / "b", CONFIG)
    assert not (tmp_path / "a").exists()
    with folder.begin({"epochs": 3}, DATA):
        assert (folder.path / "config.gin").read_text() == CONFIG
        assert (folder.path / "tensorboard").is_dir()


def test_the_same_configuration_comes_back_to_its_folder(tmp_path):
    for _ in range(2):
        with RunFolder.of(tmp_path, CONFIG).begin({}, DATA):
            assert RunFolder.of(tmp_path, CONFIG).finished() is None
    RunFolder.of(tmp_path, CONFIG).finish({"best": {"test_clean": 0.5}})
    assert RunFolder.of(tmp_path, CONFIG).finished() == {"best": {"test_clean": 0.5}}


def test_another_configuration_is_refused_with_the_first_difference(tmp_path):
    with RunFolder.of(tmp_path, CONFIG).begin({}, DATA):
        pass
    with pytest.raises(UserError, match=r"\(there: EPOCHS = 3; here: EPOCHS = 4\)"):
        RunFolder.of(tmp_path, "EPOCHS = 4\nSEED = 0\n").finished()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty folder, or a run to go on with"):
        RunFolder.of(tmp_path, CONFIG).finished()
    with pytest.raises(UserError, match="expected a new or empty folder"):
        RunFolder.of(tmp_path / "thesis.tex", CONFIG).finished()
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_which_a_run_was_killed_at_once_is_as_good_as_new(tmp_path):
    (tmp_path / ".lock").touch()
    with RunFolder.of(tmp_path, CONFIG).begin({}, DATA):
        assert (tmp_path / "config.gin").read_text() == CONFIG


def test_what_kills_left_is_gone_once_a_run_goes_on(tmp_path):
    run = RunFolder.of(tmp_path, CONFIG)
    with run.begin({}, DATA):
        (tmp_path / "checkpoints").mkdir()
    for name in (".history.json.part12345678.json", "checkpoints/.epoch-0001.keras.part12345678.keras"):
        (tmp_path / name).touch()
    with run.begin({}, DATA):
        assert not list(tmp_path.rglob("*.part*"))


def test_a_run_is_read_as_it_was_written(tmp_path):
    folder = RunFolder.of(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"expected the folder of a run \(with config.gin\)"):
        read_run(tmp_path)
    with folder.begin({}, DATA):
        (tmp_path / "history.json").write_text('[{"epoch": 1}]')
    with pytest.raises(UserError, match=r"expected the folder of a finished run \(with result.json\)"):
        read_run(tmp_path)
    assert read_run(tmp_path, finished=False) == Run(tmp_path, CONFIG, None, [{"epoch": 1}])
    folder.finish({"best": {"test_clean": 0.5}})
    assert read_run(tmp_path).result == {"best": {"test_clean": 0.5}}


def test_data_are_compared_as_far_as_both_sides_know_them(tmp_path):
    with RunFolder.of(tmp_path, CONFIG).begin({}, {**DATA, "extra images": "9, SHA-256 abc"}):
        assert trained_on(tmp_path)["extra images"] == "9, SHA-256 abc"
    require_same_data(tmp_path, DATA)  # a command that comes after training reads no extra images
    for name, value in (("extra images", "9, SHA-256 abd"), ("class names", ["cat", "cow"])):
        with pytest.raises(UserError, match=f"its data have changed since training began: {name}"):
            require_same_data(tmp_path, {**DATA, name: value})
    assert trained_on(tmp_path / "none") == {}


def test_a_run_with_other_parts_of_ones_own_is_another(tmp_path):
    with RunFolder.of(tmp_path, CONFIG, {"mine": "abc"}).begin({}, DATA):
        assert parts_of(tmp_path) == {"mine": "abc"}
    assert RunFolder.of(tmp_path, CONFIG, {"mine": "abc"}).finished() is None
    for other in ({"mine": "abd"}, {}):
        with pytest.raises(UserError, match="holds a run of another import"):
            RunFolder.of(tmp_path, CONFIG, other).finished()
    both = RunFolder.of(tmp_path / "two", CONFIG, {"a": "1", "b": "2"})
    assert both.fingerprint == RunFolder.of(tmp_path / "two", CONFIG, {"b": "2", "a": "1"}).fingerprint
    (tmp_path / "parts.json").unlink()  # as versions before that file left it
    assert RunFolder.of(tmp_path, CONFIG, {"mine": "abd"}).finished() is None


def test_a_start_that_was_killed_before_its_configuration_leaves_no_parts_to_the_next(tmp_path):
    (tmp_path / "parts.json").write_text("{}")
    with RunFolder.of(tmp_path, CONFIG).begin({}, DATA):
        assert not (tmp_path / "parts.json").exists()


def test_what_cannot_be_written_is_refused(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot be written"), RunFolder.of(blocked / "run", CONFIG).begin({}, DATA):
        pass


def test_a_second_process_is_kept_out(tmp_path):
    code = (
        "from awp_tf.infra.run_folder import RunFolder; import pathlib, sys\n"
        f"with RunFolder.of(pathlib.Path({str(tmp_path)!r}), {CONFIG!r}).begin({{}}, {{}}): pass"
    )
    with RunFolder.of(tmp_path, CONFIG).begin({}, DATA):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        other = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
    assert "another process is working in it" in other.stderr


def test_stray_files_among_the_kept_networks_are_left_alone(tmp_path):
    (tmp_path / "epochs").mkdir()
    for name in ("epoch-0010.keras", "epoch-0010-old.keras", "epoch-x.keras", "notes.txt"):
        (tmp_path / "epochs" / name).touch()
    assert list(kept_epochs(tmp_path)) == [10]
