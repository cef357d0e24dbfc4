"""Which devices of which machines are used, and how they share a batch."""

import os
from collections.abc import Sequence

import tensorflow as tf

from awp_tf.infra import cluster as clusters
from awp_tf.infra import doorbell
from awp_tf.infra.devices import choose_devices
from awp_tf.infra.errors import UserError, first_line, one_of, positive
from awp_tf.infra.workers import SeveralWorkers, Workers

_COLLECTIVES = {
    name: tf.distribute.experimental.CommunicationImplementation[name.upper()] for name in ("auto", "ring", "nccl")
}


def join(
    devices: int | None, kind: str | None, task: str, *, collectives: str = "auto", wait_seconds: float = 60.0
) -> tuple[tf.distribute.Strategy, Workers]:
    """The devices that share every batch, and the processes that work together.

    Args:
        devices: See make_strategy; of each machine.
        kind: Which machines: see awp_tf.infra.cluster.find; or "tpu", those of a TPU (never tried).
        task: What is about to be done, which all workers have to agree in.
        collectives: Of several machines, "auto", "ring" or "nccl" (GPUs).
        wait_seconds: How long to wait for the other machines.

    Raises:
        UserError: There are not so many devices, the scheduler says nothing that makes sense, or other workers are
            absent or about to do something else.
    """
    one_of("collectives", collectives, _COLLECTIVES)
    positive("wait_seconds", wait_seconds)
    if kind == "tpu":
        return _tpu(), Workers()
    cluster = clusters.find(kind)
    if cluster.alone:
        return make_strategy(devices), Workers()
    count = len(choose_devices(devices))
    gpus = count if tf.config.list_physical_devices("GPU") else 0
    if count > 1 and not gpus:
        raise UserError(f"devices: expected 1 on machines without GPUs that work together, received {count}.")
    doorbell.ring(cluster, task, wait_seconds)
    options = tf.distribute.experimental.CommunicationOptions(implementation=_COLLECTIVES[collectives])
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver(gpus), options)
    return strategy, SeveralWorkers(strategy, cluster.index, len(cluster.workers))


def _tpu() -> tf.distribute.Strategy:
    """The TPU of this machine, or the one that TPU_NAME says."""
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        said = first_line(error)
        raise UserError(f"cluster: expected a TPU (TPU_NAME) for 'tpu', received none ({said}).") from error


def make_strategy(devices: int | None) -> tf.distribute.Strategy:
    """The default strategy on one device, MirroredStrategy on several.

    Args:
        devices: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several CPUs are slices of
            the one there is, each with threads for its share of the cores: on two cores faster for narrow networks.

    Raises:
        UserError: There are not so many.
    """
    names = choose_devices(devices).names
    return mirrored(names) if names else tf.distribute.get_strategy()


def mirrored(names: Sequence[str]) -> tf.distribute.Strategy:
    """MirroredStrategy on these devices ("GPU:0", or "CPU:1": a slice of the one CPU).

    On CPUs its sums are made on one device: TensorFlow's own choice there, collectives, numbers them
    from the same start in every strategy, so that a second strategy in one process may meet the
    first's numbers with another dtype and stop.
    """
    if names[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(list(names))
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=tf.distribute.ReductionToOneDevice())
