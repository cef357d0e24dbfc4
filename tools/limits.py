"""What the machine itself can do, as a child of awp_tf.infra.apart: how fast it multiplies matrices, and copies memory.

python -m tools.limits DTYPE
"""

import sys
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from awp_tf.infra.apart import Facts, serve
from awp_tf.infra.devices import use_gpus

_COPIED, _TIMES = 2**26, 4


def prepare(arguments: Sequence[str]) -> tuple[Callable[[], Facts], Facts]:
    """Of a type: a step that says "product", operations a second, and "copy", bytes a second, read and written."""
    use_gpus(1)
    # What is timed has to take long beside its call.
    size, products, copies = (8192, 16, 64) if tf.config.list_physical_devices("GPU") else (2048, 1, 1)
    factor = tf.cast(tf.random.normal([size, size]) / size**0.5, arguments[0])  # its powers stay finite
    block = tf.zeros([_COPIED], tf.float32)
    multiply = tf.function(lambda: repeated(products, lambda x: tf.matmul(x, factor), factor))
    copy = tf.function(lambda: repeated(copies, lambda x: x + 1.0, block))

    def rate(run: Callable[[], tf.Tensor], work: float) -> float:
        return max(work / _seconds(run) for _ in range(_TIMES))

    def step() -> Facts:
        return {"product": rate(multiply, 2.0 * size**3 * products), "copy": rate(copy, 2.0 * 4 * _COPIED * copies)}

    step()
    return step, {}


def repeated(times: int, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Function of function of ... x, one after the other: in a loop, so that nothing is hoisted or merged."""
    return tf.while_loop(lambda i, _: i < times, lambda i, x: (i + 1, function(x)), (tf.constant(0), x))[1]


def _seconds(run: Callable[[], tf.Tensor]) -> float:
    start = time.perf_counter()
    float(tf.reshape(run(), [-1])[0])
    return time.perf_counter() - start


if __name__ == "__main__":
    serve(prepare, sys.argv[1:])
