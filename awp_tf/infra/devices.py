"""The devices of this machine on which one piece of work is done side by side."""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

import tensorflow as tf

from awp_tf.infra import cpu
from awp_tf.infra.errors import UserError, at_least

Item = TypeVar("Item")
Result = TypeVar("Result")
Nested = TypeVar("Nested")


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices that take parts of one piece of work; how many there are changes no number.

    Attributes:
        names: TensorFlow's, for instance ("GPU:0", "GPU:1"). None at all is one device, wherever TensorFlow works.

    Example:
        >>> from awp_tf.infra.devices import Devices
        >>> list(Devices().map(lambda device, item: item**2, [1, 2, 3]))
        [1, 4, 9]
    """

    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many."""
        return max(len(self.names), 1)

    @property
    def threads(self) -> int:
        """Threads that work side by side: on a CPU one for each core, on GPUs one for each of them."""
        return len(self) * cpu.threads()

    def on(self, number: int) -> AbstractContextManager[object]:
        """A context: operations are on device `number` modulo their count, also in functions traced elsewhere."""
        return tf.device(self.names[number % len(self)]) if self.names else contextlib.nullcontext()

    def copies(self, tensors: Nested) -> list[Nested]:
        """Tensors, nested as they like, on each of the devices: what lies elsewhere would be sent in every call."""
        if not self.names:
            return [tensors]
        result = []
        for number in range(len(self)):
            with self.on(number):
                result.append(tf.nest.map_structure(tf.identity, tensors))
        return result

    def map(self, function: Callable[[int, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """function(device, item) of each item, in order; each device works on one item at a time.

        Args:
            function: Called on that device, by a thread of its own where there are several.
            items: Read one by one, no sooner than a device is free.
        """
        if not self.names:
            yield from (function(0, item) for item in items)
            return

        def work(number: int, item: Item) -> Result:
            with self.on(number):
                return function(number, item)

        running: collections.deque[Future[Result]] = collections.deque()
        with ThreadPoolExecutor(len(self)) as pool:
            for place, item in enumerate(items):
                if len(running) == len(self):
                    yield running.popleft().result()  # its device takes this item
                running.append(pool.submit(work, place % len(self), item))
            while running:
                yield running.popleft().result()


def choose_devices(count: int | None) -> Devices:
    """All that a command uses; to be called before TensorFlow does anything.

    Args:
        count: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several CPUs are slices of
            the one there is, each with threads for its share of the cores.

    Raises:
        UserError: There are not so many.
    """
    gpus = tf.config.list_physical_devices("GPU")
    count = max(1, len(gpus)) if count is None else count
    at_least("devices", count, 1)
    if gpus:
        if count > len(gpus):
            raise UserError(f"devices: expected at most the {len(gpus)} GPUs of this machine, received {count}.")
        use_gpus(count)
    if count == 1:
        return Devices()
    if not gpus:
        _slice_cpu(count)
    return Devices(tuple(f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count)))


def choose_kernels(*, deterministic: bool) -> None:
    """GPU kernels that add up in the same order in every run, or the fastest; those of CPUs are the same in any case.

    To be called before TensorFlow does anything. Holds for the rest of the process.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 in float32: a GPU would round them to the 10 bits of TensorFloat-32, as training may.

    Of the whole process: not for use in several threads at a time.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def devices_in_scope() -> Devices:
    """Those of the strategy in whose scope this is called."""
    strategy = tf.distribute.get_strategy()
    return Devices(tuple(strategy.extended.worker_devices)) if strategy.num_replicas_in_sync > 1 else Devices()


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
    """Slices side by side lose less than operations that share out their work: narrow networks have little to share."""
    cpu.share_among(count)
    os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")  # else all slices together have the threads of one
    cpus = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow already runs, with as many as it was given then
        available = len(tf.config.list_logical_devices("CPU"))
        if available < count:
            raise UserError(f"devices: expected at most {available} logical CPUs, received {count}.") from None
