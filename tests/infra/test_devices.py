"""One piece of work on several devices: two logical CPUs stand for them."""

import threading

import pytest
import tensorflow as tf

from awp_tf.infra import cpu
from awp_tf.infra.devices import Devices, choose_devices, choose_kernels, devices_in_scope
from awp_tf.training.strategy import make_strategy

TWO = Devices(("CPU:0", "CPU:1"))


def place(tensor):
    return tensor.device.rsplit(":", 2)[-2:]


def test_a_function_traced_once_runs_on_each_device_and_results_come_in_order():
    double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([])], autograph=False)
    found = list(TWO.map(lambda device, x: (device, double(x)), [tf.constant(float(i)) for i in range(5)]))
    assert [float(y) for _, y in found] == [0, 2, 4, 6, 8]
    assert [place(y) for _, y in found] == [["CPU", str(device)] for device, _ in found]
    assert [device for device, _ in found] == [0, 1, 0, 1, 0]
    assert double.experimental_get_tracing_count() == 1


def test_devices_work_at_the_same_time_and_nothing_is_read_before_one_is_free():
    meet, read = threading.Barrier(2, timeout=20), []

    def items():
        for item in range(6):
            read.append(item)
            yield item

    def work(device, item):
        meet.wait()  # needs the other one
        return item, len(read)

    for item, so_far in TWO.map(work, items()):
        assert so_far <= item + 3


def test_one_device_is_no_thread_and_no_copy():
    tensors = [tf.constant([1.0])]
    assert Devices().copies(tensors)[0] is tensors
    threads = list(Devices().map(lambda device, item: threading.current_thread(), [1, 2]))
    assert set(threads) == {threading.current_thread()}
    assert len(Devices()) == 1


def test_copies_lie_on_their_devices():
    copies = TWO.copies([[tf.constant([1.0, 2.0])], []])
    assert [place(weights[0]) for weights, _ in copies] == [["CPU", "0"], ["CPU", "1"]]
    assert [weights[0].numpy().tolist() for weights, _ in copies] == [[1, 2], [1, 2]]
    assert TWO.copies([]) == [[], []]


def test_a_failure_stops_the_work_and_is_passed_on():
    done = []

    def work(device, item):
        done.append(item)
        if item == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(TWO.map(work, range(100)))
    assert len(done) <= 6


def test_a_thread_a_core_on_each(monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: [0, 1, 2])
    assert (Devices().threads, TWO.threads) == (3, 6)


def test_those_of_the_strategy_in_scope():
    assert choose_devices(None) == choose_devices(1) == devices_in_scope() == Devices()
    assert choose_devices(2) == TWO
    with make_strategy(2).scope():
        assert [name.rsplit(":", 2)[-2:] for name in devices_in_scope().names] == [["CPU", "0"], ["CPU", "1"]]


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_kernels_are_asked_for_where_they_are_wanted(deterministic, monkeypatch):
    asked = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append(True))
    choose_kernels(deterministic=deterministic)
    assert asked == [True] * deterministic
