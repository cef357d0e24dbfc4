import subprocess
import sys

import numpy as np
import pytest

from awp_tf.infra import memory
from awp_tf.infra.errors import UserError


def test_room_follows_the_machine():
    assert memory.room("it", None) == memory.machine() // 4 == memory.default_room()
    assert memory.room("it", 2) == 2**31
    assert 2**28 < memory.machine() < 2**50


def test_room_is_a_number_above_zero():
    with pytest.raises(UserError, match=r"^it: expected a number > 0, received -1"):
        memory.room("it", -1)


@pytest.mark.parametrize(
    ("group", "limit"),
    [
        ("0::/system.slice/job_7/step_0", "sys/fs/cgroup/system.slice/job_7/memory.max"),
        ("4:memory:/slurm/job_7", "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes"),
        ("0::/", "sys/fs/cgroup/memory.max"),
    ],
)
def test_the_limit_of_a_job_is_seen_also_where_that_of_its_machine_is_higher(group, limit, tmp_path):
    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/self/cgroup", f"9:pids:/\n{group}\n")
    write("sys/fs/cgroup/system.slice/memory.max", "max\n")
    assert memory.machine(tmp_path) == memory.machine(tmp_path / "nowhere")
    write(limit, "100000\n")
    assert memory.machine(tmp_path) == 100000


def test_the_peak_of_a_process_is_its_own():
    block = np.ones(2**27, np.uint8)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as small:
        found = memory.peak(), memory.peak(small.pid)
        small.communicate()
    assert block.nbytes < found[0] < 2**40
    assert 0 < found[1] < 2**27
    assert memory.peak("nobody") == 0
