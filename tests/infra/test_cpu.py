import os

import pytest

from awp_tf.infra import cpu


def test_cores_are_those_the_process_is_bound_to():
    everything = cpu.cores()
    assert everything == sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, everything[-1:])
        assert cpu.cores() == everything[-1:]
        assert cpu.workers() == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_without_affinity_all_cores_are_its_own(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpu.cores() == [0]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (64, 8)])
def test_a_worker_a_core_but_not_too_many(count, expected, monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: list(range(count)))
    assert cpu.workers() == expected


def test_a_gpu_has_one_worker(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: ["GPU:0"])
    assert cpu.workers() == 1
