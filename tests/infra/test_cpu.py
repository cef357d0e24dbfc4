import os
import pathlib
import subprocess
import sys

import pytest

from awp_tf.infra import cpu


def test_cores_are_those_the_process_is_bound_to():
    everything = cpu.cores()
    assert everything == sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, everything[-1:])
        assert cpu.cores() == everything[-1:]
        assert cpu.threads() == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_without_affinity_all_cores_are_its_own(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.cores() == [0]


@pytest.fixture
def fresh():
    """What was found out about the CPU is forgotten before and after."""
    cpu.has_avx512.cache_clear()
    yield
    cpu.has_avx512.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("flags", "expected"), [("fma avx2", False), ("avx2 avx512f avx512bw", True)])
def test_avx512_is_what_the_kernel_says(flags, expected, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "read_text", lambda _: f"processor: 0\nflags\t\t: {flags}\n")
    assert cpu.has_avx512() is expected


@pytest.mark.usefixtures("fresh")
def test_avx512_is_not_assumed(monkeypatch):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", missing)
    assert cpu.has_avx512() is False


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (64, 8)])
def test_a_thread_a_core_but_not_too_many(count, expected, monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: list(range(count)))
    assert cpu.threads() == expected


@pytest.mark.parametrize(("count", "expected"), [(1, 8), (2, 4), (3, 2), (16, 1)])
def test_slices_of_the_cpu_share_its_cores(count, expected, monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: list(range(8)))
    asked = []
    monkeypatch.setattr("tensorflow.config.threading.set_intra_op_parallelism_threads", asked.append)
    cpu.share_among(count)
    assert asked == [expected]


def threads_of_two_slices(pools_of_their_own):
    """How many threads a process has that cuts eight cores in two slices and works on both."""
    code = (
        "import os, tensorflow as tf; from awp_tf.infra import cpu; from awp_tf.infra.devices import choose_devices\n"
        "cpu.cores = lambda: list(range(8))\n"
        "for name in choose_devices(2).names:\n"
        "    with tf.device(name): tf.matmul(tf.ones([512, 512]), tf.ones([512, 512])).numpy()\n"
        "print(len(os.listdir('/proc/self/task')), tf.config.threading.get_intra_op_parallelism_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_OVERRIDE_GLOBAL_THREADPOOL"}
    shared = {} if pools_of_their_own else {"TF_OVERRIDE_GLOBAL_THREADPOOL": "0"}
    said = subprocess.check_output(
        [sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL, env={**environment, **shared}
    )
    return tuple(map(int, said.split()))


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="only Linux says which threads a process has")
def test_slices_of_a_cpu_have_threads_of_their_own():
    (own, of_a_slice), (together, _) = (threads_of_two_slices(each) for each in (True, False))
    assert of_a_slice == 4
    assert own >= together + of_a_slice


def test_a_gpu_has_one_thread(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: ["GPU:0"])
    assert cpu.threads() == 1
