"""On which devices the commands work that look at networks with attacks: evaluate and landscape."""

import absl.flags
import tensorflow as tf

from awp_tf.infra import cpu
from awp_tf.infra.devices import Devices, choose_devices

DEVICES = absl.flags.DEFINE_integer(
    "devices",
    None,
    "How many GPUs (or, where there is none, slices of the CPU, to try it out) work side by side; the numbers are the "
    "same. By default all GPUs, or the CPU as it is.",
)


def prepare() -> Devices:
    """To be called before TensorFlow does anything.

    Raises:
        UserError: There are not so many.
    """
    devices = choose_devices(DEVICES.value)
    cpu.prepare()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU would round to 10 bits
    return devices
