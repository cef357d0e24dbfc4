"""Which GPUs are seen: as far as a machine without one can tell (TensorFlow's answers are stood in for)."""

import pytest
import tensorflow as tf
from helpers import tiny_trainer
from test_trainer import bn_network

from awp_tf.infra.devices import use_gpus
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.training.strategy import make_strategy


@pytest.fixture
def machine(monkeypatch):
    """A machine of 8 GPUs: what is made visible, and whose memory grows."""
    gpus = [f"gpu{i}" for i in range(8)]
    said = {"visible": gpus, "grow": []}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else ["cpu"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: said.update(visible=devices))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, grows: said["grow"].append(gpu))
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda devices: devices)
    return said


@pytest.mark.parametrize("devices", [1, 2, 8, None])
def test_only_the_gpus_that_are_used_are_seen_and_their_memory_grows(devices, machine):
    strategy = make_strategy(devices)
    count = devices or 8
    assert machine["visible"] == machine["grow"] == [f"gpu{i}" for i in range(count)]
    assert strategy == ([f"GPU:{i}" for i in range(count)] if count > 1 else tf.distribute.get_strategy())


def test_more_gpus_than_there_are_is_refused_before_any_is_touched(machine):
    with pytest.raises(UserError, match="devices: expected at most the 8 GPUs of this machine, received 9"):
        make_strategy(9)
    assert len(machine["visible"]) == 8
    assert machine["grow"] == []


def test_once_tensorflow_runs_the_gpus_stay_as_they_are(machine, monkeypatch):
    def too_late(devices, kind):
        raise RuntimeError

    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    use_gpus(1)
    assert machine["grow"] == []


def test_without_a_gpu_one_cpu_is_used_and_it_can_be_sliced():
    assert make_strategy(None) is tf.distribute.get_strategy()
    assert make_strategy(2).num_replicas_in_sync == 2
    with pytest.raises(UserError, match="devices: expected at most 2 logical CPUs, received 3"):
        make_strategy(3)
    with pytest.raises(UserError, match="devices: expected a whole number >= 1"):
        make_strategy(0)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"xla": True}, r"XLA \(say xla=False\)"),
        (
            {"method": AT(attack_in_training_mode=True)},
            r"an attack in training mode \(say attack_in_training_mode=False\)",
        ),
        ({"accumulation": 2}, r"a batch in parts \(say accumulation=1\)"),
    ],
)
def test_synchronized_statistics_are_refused_where_replicas_cannot_meet(settings, why):
    with make_strategy(2).scope():
        network = bn_network(synchronized=True)
        with pytest.raises(UserError, match=f"synchronized=True on several devices does not work with {why}"):
            tiny_trainer(network, **settings)
        tiny_trainer(bn_network(), **settings)
    tiny_trainer(bn_network(synchronized=True), **settings)  # on one device nobody has to be met
