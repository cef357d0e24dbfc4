"""What the machine itself can do, as a child of tools.apart: how fast it multiplies matrices, and copies memory.

python -m tools.limits DTYPE
"""

import sys
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from awp_tf.infra.devices import use_gpus
from tools.apart import Facts, serve

_SIZE, _COPIED, _TIMES = 2048, 2**26, 4


def prepare(arguments: Sequence[str]) -> tuple[Callable[[], Facts], Facts]:
    """Of a type: a step that says "product", operations a second, and "copy", bytes a second, read and written."""
    use_gpus(1)
    factor = tf.cast(tf.random.normal([_SIZE, _SIZE]), arguments[0])
    block = tf.zeros([_COPIED], tf.float32)
    multiply = tf.function(lambda: tf.matmul(factor, factor))
    copy = tf.function(lambda: block + 1.0)

    def rate(run: Callable[[], tf.Tensor], work: float) -> float:
        return max(work / _seconds(run) for _ in range(_TIMES))

    def step() -> Facts:
        return {"product": rate(multiply, 2.0 * _SIZE**3), "copy": rate(copy, 2.0 * 4 * _COPIED)}

    step()
    return step, {}


def _seconds(run: Callable[[], tf.Tensor]) -> float:
    start = time.perf_counter()
    float(tf.reshape(run(), [-1])[0])
    return time.perf_counter() - start


if __name__ == "__main__":
    serve(prepare, sys.argv[1:])
