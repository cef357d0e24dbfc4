"""Processes of a study: one that dies is said, and costs nothing but itself."""

import json

import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupt
from awp_tf.study.worker import Worker, shares_of_cores

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
