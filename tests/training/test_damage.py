"""Files of a run that a bad disk damaged: the checkpoint knows them, or it is said what to do."""

import json
import os
import time

import keras
import pytest
from helpers import assert_same_weights, tiny_split
from training.test_loop import make_loop, signal_after

from awp_tf.attacks import PGD
from awp_tf.data import Split
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import is_whole_zip
from awp_tf.infra.run_folder import RunFolder, parts_of, read_run, trained_on
from awp_tf.infra.signals import Interrupted
from awp_tf.threats import Linf
from awp_tf.training import final_test


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x80
    file.write_bytes(content)


DAMAGES = [truncate, empty, flip_a_bit]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_loop(folder)[0].run()
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def folder(trained, tmp_path):
    for name, content in trained.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("damage", DAMAGES)
def test_history_and_the_last_network_are_written_again(damage, folder, trained):
    before = keras.models.load_model(folder / "last.keras")
    for name in ("history.json", "last.keras"):
        damage(folder / name)
    loop, _ = make_loop(folder)
    loop.run()
    assert_same_weights(keras.models.load_model(folder / "last.keras"), before)
    assert (folder / "history.json").read_bytes() == trained[(folder / "history.json").relative_to(folder)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_of_which_one_bit_is_wrong_is_passed_over(damage, folder, capsys):
    before = keras.models.load_model(folder / "last.keras")
    damage(folder / "checkpoints" / "step-9.data-00000-of-00001")
    loop, trainer = make_loop(folder)
    loop.run()
    assert "step-9 cannot be read" in capsys.readouterr().err
    assert_same_weights(trainer.network, before)


def measured(folder, split: Split):
    return final_test.measure(
        folder, Measurement(PGD(Linf(0.02), steps=2), batch_size=5), split, split, dtype="float32"
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_best_network_is_one_line_and_a_damaged_state_of_the_test_begins_anew(damage, folder, trained):
    (folder / "testing.json").write_text('{"best/test": {"images": 10, "clean": 1, "robust": 1}}')
    damage(folder / "testing.json")
    first = measured(folder, tiny_split(20))
    assert measured(folder, tiny_split(20)) == first
    damage(folder / "best.keras")
    assert not is_whole_zip(folder / "best.keras")
    with pytest.raises(UserError, match=r"best\.keras cannot be read as a Keras network.*put back a copy") as error:
        measured(folder, tiny_split(20))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_texts_of_a_run_are_one_line_that_names_the_file(damage, tmp_path):
    run = RunFolder.of(tmp_path, "a = 1\n", {"mine": "abc"})
    with run.begin({}, {"classes": 3}):
        run.finish({"best": {"test_robust": 0.5}})
    for name, read in (("data.json", trained_on), ("parts.json", parts_of), ("result.json", read_run)):
        kept = (tmp_path / name).read_bytes()
        damage(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: expected JSON"):
            read(tmp_path)
        (tmp_path / name).write_bytes(kept)
    damage(tmp_path / "result.json")
    with pytest.raises(UserError, match=r"result\.json: expected a run, .*delete this file, and the same"):
        run.finished()
    (tmp_path / "result.json").unlink()
    assert run.finished() is None
    damage(tmp_path / "config.gin")
    with pytest.raises(UserError, match="holds a run of another configuration"):
        run.finished()


def test_clocks_that_go_back_change_nothing(folder, tmp_path, monkeypatch, trained):
    start, calls = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: start - 3600 * next(calls))
    loop, trainer = make_loop(tmp_path / "back")
    loop.run()
    assert_same_weights(trainer.network, keras.models.load_model(folder / "last.keras"))
    assert json.loads((tmp_path / "back" / "history.json").read_text()) == json.loads(
        (folder / "history.json").read_text()
    )


def test_a_clock_that_is_set_back_between_start_and_resume_changes_nothing(folder, tmp_path, monkeypatch):
    now, place = time.time(), tmp_path / "back"
    loop, trainer = make_loop(place)
    signal_after(5, trainer)
    with pytest.raises(Interrupted):
        loop.run()
    for file in place.rglob("*"):
        os.utime(file, (now + 86400, now + 86400))  # what is there comes from tomorrow
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    loop, trainer = make_loop(place)
    loop.run()
    assert (loop.progress.step, loop.progress.epoch) == (9, 3)
    assert_same_weights(trainer.network, keras.models.load_model(folder / "last.keras"))
    assert (place / "history.json").read_bytes() == (folder / "history.json").read_bytes()
