"""The processes that train one network together: which of them writes, and how they decide something together."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from awp_tf.infra.errors import UserError, first_difference, first_line
from awp_tf.infra.signals import Interrupted

_SECONDS = 1.0  # between two meetings, about: each makes the device wait
_SELDOM = 1000


class WorkerLost(Exception):  # noqa: N818 (the run is none the worse for it)
    """Another process of the run is gone; started again, all of them go on from the last checkpoint."""


class Workers:
    """One process, which need ask nobody.

    Attributes:
        index: Which one this process is.
        count: How many there are.
    """

    index, count = 0, 1

    @property
    def is_chief(self) -> bool:
        """Whether this process holds the lock, writes and prints."""
        return self.index == 0

    def gather(self, text: str) -> list[str]:
        """What each worker says, in order; all of them call this at the same point."""
        return [text]

    def agree(self, *numbers: int) -> tuple[int, ...]:
        """The largest of each number that a worker says; to be called after every step by all of them.

        They meet now and then only: in between, the answer is zeros.
        """
        return numbers

    def meet(self, *numbers: int) -> tuple[int, ...]:
        """As agree, at once."""
        return tuple(
            max(each) for each in zip(*(json.loads(text) for text in self.gather(json.dumps(numbers))), strict=True)
        )

    def total(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The sums over the workers."""
        said = [json.loads(text) for text in self.gather(json.dumps(counts))]
        return {name: sum(each[name] for each in said) for name in counts}

    def stop(self, signum: int) -> None:
        """Raises Interrupted after a signal if this is the only process; several stop where they meet."""
        if signum:
            raise Interrupted(signum)

    def share(self, first: int, stop: int) -> tuple[int, int]:
        """Which of the places first..stop-1 are this worker's: from, to."""
        size = stop - first
        return first + size * self.index // self.count, first + size * (self.index + 1) // self.count

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is wrong for one is wrong for all: a UserError of any worker is raised by each."""
        wrong = ""
        try:
            yield
        except UserError as error:
            wrong = str(error) or "unknown"
            raise
        finally:
            said = self.gather(wrong)
        for index, text in enumerate(said):
            if text:
                raise UserError(f"worker {index}: {text}")

    def require_same(self, what: str, text: str) -> None:
        """Raises UserError on all workers unless each says the same; a line that differs is shown."""
        said = self.gather(text)
        for index, other in enumerate(said):
            if other != said[0]:
                here, there = first_difference(said[0], other)
                raise UserError(
                    f"expected the same {what} on all workers, "
                    f"received on worker {index}: {there}; on worker 0: {here}."
                )


class SeveralWorkers(Workers):
    """Processes under a MultiWorkerMirroredStrategy, which meet by its collectives."""

    def __init__(self, strategy: tf.distribute.Strategy, index: int, count: int) -> None:
        """This process is number index of so many."""
        self.index, self.count = index, count
        self._strategy, self._local = strategy, strategy.num_replicas_in_sync // count
        self._sum = tf.function(self._sum_pure, input_signature=[tf.TensorSpec([None], tf.int32)], autograph=False)
        self._calls, self._often, self._last = 0, 1, time.monotonic()

    def gather(self, text: str) -> list[str]:
        """See Workers."""
        own = text.encode()
        sizes = self._everybody(tf.one_hot(self.index, self.count, on_value=len(own), off_value=0, dtype=tf.int32))
        longest = max(1, int(max(sizes)))
        rows = tf.pad(
            tf.constant(list(own), tf.int32), [[self.index * longest, (self.count - self.index) * longest - len(own)]]
        )
        found = self._everybody(rows)
        parts = (found[i * longest : i * longest + int(size)] for i, size in enumerate(sizes))
        return [bytes(int(byte) for byte in part).decode() for part in parts]

    def agree(self, *numbers: int) -> tuple[int, ...]:
        """See Workers; the chief's clock says after how many steps the next meeting is, so that all know."""
        self._calls += 1
        if self._calls < self._often:
            return (0,) * len(numbers)
        passed = time.monotonic() - self._last
        often = min(_SELDOM, max(1, int(self._calls * _SECONDS / max(passed, 1e-6))))
        *agreed, self._often = self.meet(*numbers, often if self.is_chief else 0)
        self._calls, self._last = 0, time.monotonic()
        return tuple(agreed)

    def stop(self, signum: int) -> None:
        """See Workers."""

    def _everybody(self, own: tf.Tensor) -> Sequence[int]:
        """The sum over the workers of int32 [N]."""
        total: Sequence[int] = self._sum(own).numpy().tolist()
        return total

    def _sum_pure(self, own: tf.Tensor) -> tf.Tensor:
        def replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # Replicas are numbered through, machine by machine; one speaks for each.
            speaks = context.replica_id_in_sync_group % self._local == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(speaks, own, tf.zeros_like(own)))

        return self._strategy.experimental_local_results(self._strategy.run(replica))[0]


@contextlib.contextmanager
def plainly_lost(workers: Workers) -> Iterator[None]:
    """Turns what TensorFlow says when another worker is gone into WorkerLost."""
    try:
        yield
    except tf.errors.OpError as error:
        if workers.count == 1 or not re.search(r"Collective ops|peer|connect|GRPC|task:\d|[Hh]eartbeat", str(error)):
            raise
        said = re.sub(r"^\{\{.*?\}\}\s*", "", first_line(error))  # which node of the graph
        raise WorkerLost(f"another worker is gone ({said})") from error


@contextlib.contextmanager
def silent(is_so: bool) -> Iterator[None]:
    """Prints nothing, if it is so; errors are still said."""
    if not is_so:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
