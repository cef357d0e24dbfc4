"""Which devices of which machines are used, and how they share a batch."""

import contextlib
import os

import tensorflow as tf

from awp_tf.infra import cluster as clusters
from awp_tf.infra import doorbell
from awp_tf.infra.errors import UserError, at_least, first_line, one_of, positive
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
    count = _local_devices(devices)
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
        devices: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several
            CPUs are slices of the one there is: good for trying out, not for speed.

    Raises:
        UserError: There are not so many.
    """
    count = _local_devices(devices)
    if count == 1:
        return tf.distribute.get_strategy()
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _local_devices(devices: int | None) -> int:
    """How many devices of this machine are used; they are prepared."""
    gpus = tf.config.list_physical_devices("GPU")
    count = max(1, len(gpus)) if devices is None else devices
    at_least("devices", count, 1)
    if gpus:
        if count > len(gpus):
            raise UserError(f"devices: expected at most the {len(gpus)} GPUs of this machine, received {count}.")
        use_gpus(count)
    elif count > 1:
        _slice_cpu(count)
    return count


def use_gpus(count: int) -> None:
    """Leaves the memory of all GPUs but the first few to others, and takes that of these as it is needed.

    To be called before TensorFlow does anything; later it has no effect.

    Args:
        count: How many are used; more than there are is all.
    """
    gpus = tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow runs already
        tf.config.set_visible_devices(gpus[:count], "GPU")
        for gpu in gpus[:count]:
            tf.config.experimental.set_memory_growth(gpu, True)


def _slice_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow already runs, with as many as it was given then
        available = len(tf.config.list_logical_devices("CPU"))
        if available < count:
            raise UserError(f"devices: expected at most {available} logical CPUs, received {count}.") from None
