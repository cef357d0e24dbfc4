"""What processes decide together; how they talk is tested with real ones in tests/training."""

import threading

import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupted
from awp_tf.infra.workers import WorkerLost, Workers, plainly_lost, silent


class Thread(Workers):
    """A worker that is a thread; they meet at a barrier."""

    def __init__(self, index, count, board, barrier):
        self.index, self.count, self._board, self._barrier = index, count, board, barrier

    def gather(self, text):
        self._board[self.index] = text
        self._barrier.wait(10)
        said = list(self._board)
        self._barrier.wait(10)
        return said


def each(function, count=3):
    """What function makes of each of several workers, or the error it raises."""
    board, barrier, found = [""] * count, threading.Barrier(count), [None] * count

    def run(index):
        try:
            found[index] = function(Thread(index, count, board, barrier))
        except UserError as error:
            found[index] = str(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_what_is_wrong_for_one_is_wrong_for_all():
    def work(worker):
        with worker.together():
            if worker.index == 1:
                raise UserError("no such file")

    assert each(work) == ["worker 1: no such file", "no such file", "worker 1: no such file"]
    assert each(lambda worker: worker.together().__enter__() and None)[0] is None


def test_data_that_differ_are_refused_by_all():
    found = each(lambda worker: worker.require_same("data", f"images 5\nlabels {worker.index // 2}"))
    assert (
        found == ["expected the same data on all workers, received on worker 2: labels 1; on worker 0: labels 0."] * 3
    )


def test_the_largest_number_counts_and_counts_add_up():
    assert each(lambda worker: worker.meet(15 * (worker.index == 1), False)) == [(15, 0)] * 3
    assert each(lambda worker: worker.total({"images": worker.index})) == [{"images": 3}] * 3


def test_shares_are_all_images_once():
    for count in (1, 2, 3, 7):
        shares = [Thread(i, count, [], None).share(10, 25) for i in range(count)]
        assert [place for first, stop in shares for place in range(first, stop)] == list(range(10, 25))


def test_a_process_alone_asks_nobody():
    alone = Workers()
    assert alone.is_chief
    assert alone.gather("x") == ["x"]
    assert alone.agree(0, True) == (0, True)
    with pytest.raises(Interrupted):
        alone.stop(15)


def test_a_lost_worker_is_told_from_an_error_of_ones_own():
    lost, said = Thread(0, 2, [], None), r"another worker is gone \(Collective ops is aborted by: Socket closed\)"
    with pytest.raises(WorkerLost, match=said), plainly_lost(lost):
        raise tf.errors.UnavailableError(None, None, "{{node x}} Collective ops is aborted by: Socket closed")
    for workers, text in ((Workers(), "Collective ops"), (lost, "out of memory")):
        with pytest.raises(tf.errors.OpError), plainly_lost(workers):
            raise tf.errors.ResourceExhaustedError(None, None, text)


def test_the_chief_alone_prints(capsys):
    for quiet in (True, False):
        with silent(quiet):
            print(f"quiet: {quiet}")
    assert capsys.readouterr().out == "quiet: False\n"
