"""Processes of a study: one that dies is said, and costs nothing but itself."""

import json

import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupt
from awp_tf.study.worker import Worker, shares_of_cores, shares_of_gpus

DIE_ONCE = """
import os, pathlib, signal, sys
if not pathlib.Path(sys.argv[1]).exists():
    pathlib.Path(sys.argv[1]).touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_that_is_killed_is_said_and_begins_again(tmp_path):
    worker = Worker(tmp_path, Interrupt(), shares_of_cores(1)[0])
    commands = {"train": ["-c", DIE_ONCE, str(tmp_path / "mark")]}
    with pytest.raises(UserError, match=r"failed with exit code -9; see .*run\.log"):
        worker.run("run", commands)
    assert worker.run("run", commands)["train"] > 0


@pytest.mark.parametrize("damaged", ["", "{", "[1"])
def test_times_that_a_disk_lost_are_no_reason_to_stop(damaged, tmp_path):
    (tmp_path / "run.seconds.json").write_text(damaged)
    found = Worker(tmp_path, Interrupt(), shares_of_cores(1)[0]).run("run", {"train": ["-c", ""]})
    assert json.loads((tmp_path / "run.seconds.json").read_text()) == found


@pytest.mark.parametrize(
    ("visible", "jobs", "count", "expected"),
    [
        (None, 2, 0, [None, None]),
        (None, 2, 4, ["0,2", "1,3"]),
        ("5,7", 2, 2, ["5", "7"]),
        (None, 3, 2, ["0", "1", "0"]),
        (None, 1, 2, ["0,1"]),
    ],
)
def test_runs_side_by_side_have_gpus_of_their_own(visible, jobs, count, expected, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares_of_gpus(jobs, count)] == expected


def test_a_process_is_told_what_is_its_own(tmp_path):
    worker = Worker(tmp_path, Interrupt(), shares_of_cores(1)[0], {"CUDA_VISIBLE_DEVICES": "3"})
    worker.run("run", {"train": ["-c", "import os; print('mine:', os.environ['CUDA_VISIBLE_DEVICES'])"]})
    assert "mine: 3" in (tmp_path / "run.log").read_text()
