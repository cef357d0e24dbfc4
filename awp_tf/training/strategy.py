"""Which devices are used, and how they share a batch."""

import contextlib

import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least


def make_strategy(devices: int | None) -> tf.distribute.Strategy:
    """The default strategy on one device, MirroredStrategy on several.

    Args:
        devices: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several
            CPUs are slices of the one there is: good for trying out, not for speed.

    Raises:
        UserError: There are not so many.
    """
    gpus = tf.config.list_physical_devices("GPU")
    count = max(1, len(gpus)) if devices is None else devices
    at_least("devices", count, 1)
    if gpus:
        if count > len(gpus):
            raise UserError(f"devices: expected at most the {len(gpus)} GPUs of this machine, received {count}.")
        use_gpus(count)
    if count == 1:
        return tf.distribute.get_strategy()
    if gpus:
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
    _slice_cpu(count)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


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
