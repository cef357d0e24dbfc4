"""Which machines work together: what schedulers say, and what is wrong with it, in one line."""

import json

import pytest

from awp_tf.infra.cluster import Cluster, find
from awp_tf.infra.errors import UserError

HOSTS = ["a:2222", "b:2222", "c:2222"]


def config(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value if isinstance(value, str) else json.dumps(value))


def of(kind="worker", index=0, **jobs):
    return {"cluster": jobs or {"worker": HOSTS}, "task": {"type": kind, "index": index}}


def test_without_tf_config_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert find(None).alone
    config(monkeypatch, "{}")
    assert find(None).alone
    config(monkeypatch, of())
    assert find("alone").alone


def test_the_first_worker_is_the_chief_whatever_it_is_called(monkeypatch):
    config(monkeypatch, of(index=2))
    assert find(None) == Cluster(tuple(HOSTS), 2)
    config(monkeypatch, of(index=1, chief=HOSTS[:1], worker=HOSTS[1:]))
    assert find(None) == Cluster(tuple(HOSTS), 2)
    config(monkeypatch, of("chief", chief=HOSTS[:1], worker=HOSTS[1:]))
    assert find(None) == Cluster(tuple(HOSTS), 0)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{", "TF_CONFIG: expected JSON"),
        ("[1]", "TF_CONFIG: expected JSON"),
        ({"cluster": "a:1"}, "TF_CONFIG: expected JSON"),
        (of(index=3), "TF_CONFIG: expected a task index from 0 to 2, as there are 3 workers, received 3"),
        (of(index=-1), "received -1"),
        (of(index="0"), "received '0'"),
        (of(ps=["p:1"], worker=HOSTS), "received jobs ps, worker"),
        (of("evaluator"), "a task of type 'evaluator'"),
        (of(worker=["a:2222", "b"]), "addresses such as host0:2222, received 'b'"),
        (of(worker=["a:2222", "b:99999"]), "received 'b:99999'"),
        (of(worker=["a:2222", "a:2222"]), "addresses of their own"),
    ],
)
def test_what_is_no_cluster_is_one_line(value, says, monkeypatch):
    config(monkeypatch, value)
    with pytest.raises(UserError, match=says.replace("(", r"\(")) as error:
        find(None)
    assert "\n" not in str(error.value)


def test_slurm_is_asked_by_its_variables(monkeypatch):
    said = {"STEP_NODELIST": "n[01-03]", "PROCID": "1", "STEP_NUM_TASKS": "3", "STEP_TASKS_PER_NODE": "1(x3)"}
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find("slurm") == Cluster(("n01:8888", "n02:8888", "n03:8888"), 1)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n7")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "3")
    assert find("slurm") == Cluster(("n7:8888", "n7:8889", "n7:8890"), 1)


def test_a_scheduler_that_is_not_there_is_said(monkeypatch):
    for name in ("SLURM_STEP_NODELIST", "SLURM_PROCID", "JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="cluster: expected a process started by srun for 'slurm'"):
        find("slurm")
    with pytest.raises(UserError, match="an Indexed Job with JOB_NAME and JOB_COMPLETION_INDEX"):
        find("kubernetes")
    with pytest.raises(
        UserError, match="cluster: expected one of None, 'alone', 'slurm', 'kubernetes', 'tpu', received 'x'"
    ):
        find("x")


def test_tensorflow_is_told_the_same():
    resolver = Cluster(tuple(HOSTS), 1).resolver(gpus=4)
    assert resolver.cluster_spec().as_dict() == {"worker": HOSTS}
    assert (resolver.task_type, resolver.task_id, resolver.num_accelerators()) == ("worker", 1, {"GPU": 4})
