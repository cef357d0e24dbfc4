"""Which machines work together, as a scheduler says."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from awp_tf.infra.errors import UserError, first_line

_MANY = 1024
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one run.

    Attributes:
        workers: host:port of each; the first is the chief.
        index: Which one this process is.
    """

    workers: Sequence[str] = ("",)
    index: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where addresses or the index make no sense."""
        for address in self.workers if len(self.workers) > 1 else ():
            host, _, port = str(address).rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise UserError(f"cluster: expected addresses such as host0:2222, received {address!r}.")
        if len(set(self.workers)) < len(self.workers):
            raise UserError(
                f"cluster: expected workers with addresses of their own, received {', '.join(self.workers)}."
            )
        if type(self.index) is not int or not 0 <= self.index < len(self.workers):
            raise UserError(
                f"cluster: expected a task index from 0 to {len(self.workers) - 1}, as there are {len(self.workers)} "
                f"workers, received {self.index!r}."
            )

    @property
    def alone(self) -> bool:
        """Whether there is one worker."""
        return len(self.workers) == 1

    def resolver(self, gpus: int) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The same for tf.distribute; each worker uses so many GPUs, or its CPU."""
        spec = tf.train.ClusterSpec({"worker": list(self.workers)})
        accelerators = {"GPU": gpus} if gpus else {}
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            spec, task_type="worker", task_id=self.index, num_accelerators=accelerators, rpc_layer="grpc"
        )


def find(kind: str | None) -> Cluster:
    """The cluster that a scheduler put this process in.

    Args:
        kind: None is that of the variable TF_CONFIG, where it is set; "slurm" and "kubernetes" ask those, by
            TensorFlow's resolvers; "alone" is this process, whatever TF_CONFIG says.

    Raises:
        UserError: What they say is no cluster that this process is in.
    """
    if kind not in _KINDS:
        known = ", ".join(repr(each) for each in _KINDS)
        raise UserError(f"cluster: expected one of {known}, 'tpu', received {kind!r}.")
    return _KINDS[kind]()


def _of_tf_config() -> Cluster:
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return Cluster()
    try:
        said = json.loads(text)
        jobs, task = dict(said.get("cluster") or {}), dict(said.get("task") or {})
        listed = {name: [str(address) for address in jobs[name]] for name in jobs}
        kind, index = task.get("type", "worker"), task.get("index", 0)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG: expected JSON such as {_EXAMPLE}, received {text[:80]!r} ({error}).") from error
    if not jobs:
        return Cluster()
    unknown = set(listed) - {"chief", "worker"}
    if unknown or kind not in listed:
        raise UserError(
            f"TF_CONFIG: expected the jobs chief and worker, and a task of one of them, received jobs "
            f"{', '.join(sorted(listed))} and a task of type {kind!r}."
        )
    chief = listed.get("chief", [])
    _require_index(index, listed[kind])
    return Cluster((*chief, *listed.get("worker", [])), index + (len(chief) if kind == "worker" else 0))


def _require_index(index: object, addresses: Sequence[str]) -> None:
    if type(index) is not int or not 0 <= index < len(addresses):
        raise UserError(
            f"TF_CONFIG: expected a task index from 0 to {len(addresses) - 1}, as there are {len(addresses)} workers, "
            f"received {index!r}."
        )


def _of_slurm() -> Cluster:
    """One task a machine: SLURM_STEP_NODELIST and its kin, which srun sets."""
    with _explained("slurm", "srun"):
        # Which GPUs there are is TensorFlow's to find: the resolver's own count, by nvidia-smi, plays no part.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=_MANY, gpus_per_task=1, auto_set_gpu=False
        )
        workers = resolver.cluster_spec().as_dict()["worker"]
        _, index = resolver.get_task_info()
        return Cluster(tuple(workers), index)


def _of_kubernetes() -> Cluster:
    """The pods of this pod's Job, in the order of their completion index, which an Indexed Job sets."""
    with _explained("kubernetes", "an Indexed Job with JOB_NAME and JOB_COMPLETION_INDEX in the environment"):
        label = f"job-name={os.environ['JOB_NAME']}"
        resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver({"worker": [label]})
        workers = resolver.cluster_spec().as_dict()["worker"]
        return Cluster(tuple(workers), int(os.environ["JOB_COMPLETION_INDEX"]))


@contextlib.contextmanager
def _explained(kind: str, by: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # resolvers raise whatever comes
        said = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"cluster: expected a process started by {by} for {kind!r}, received none ({said}).") from error


_KINDS: Mapping[str | None, Callable[[], Cluster]] = {
    None: _of_tf_config,
    "alone": Cluster,
    "slurm": _of_slurm,
    "kubernetes": _of_kubernetes,
}
