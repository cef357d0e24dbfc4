"""Which devices are used, and how they share a batch."""

import tensorflow as tf

from awp_tf.infra.devices import choose_devices


def make_strategy(devices: int | None) -> tf.distribute.Strategy:
    """The default strategy on one device, MirroredStrategy on several.

    Args:
        devices: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several
            CPUs are slices of the one there is: good for trying out, not for speed.

    Raises:
        UserError: There are not so many.
    """
    names = choose_devices(devices).names
    if not names:
        return tf.distribute.get_strategy()
    if names[0].startswith("GPU"):
        return tf.distribute.MirroredStrategy(list(names))
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=tf.distribute.ReductionToOneDevice())
