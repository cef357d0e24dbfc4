"""What is measured in and after training on two devices (logical CPUs) is what one would find."""

import dataclasses
import json

import pytest
from helpers import CLASSES, tiny_network, tiny_split
from test_trainer import bn_network

from awp_tf.attacks import PGD
from awp_tf.data import Data, Source
from awp_tf.evaluation.accuracy import Measurement, evaluate
from awp_tf.infra.devices import Devices
from awp_tf.methods import AT
from awp_tf.networks.classifier import keras_file
from awp_tf.perturbations import Identity
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training import final_test
from awp_tf.training.recipe import Recipe
from awp_tf.training.strategy import make_strategy
from awp_tf.training.train import train

ATTACK = PGD(Linf(0.02), steps=3)
MEASURE = Measurement(ATTACK, examples=None, batch_size=7)


@pytest.fixture
def used(monkeypatch):
    """Devices that attack, as Evaluator is told them."""
    seen, original = set(), Devices.map

    def spy(self, function, items):
        return original(self, lambda device, item: (seen.add((len(self), device)), function(device, item))[1], items)

    monkeypatch.setattr(Devices, "map", spy)
    return seen


def test_the_final_test(tmp_path, used):
    tiny_network(1).save(tmp_path / "best.keras")
    tiny_network(2).save(tmp_path / "last.keras")
    parts = (tmp_path, MEASURE, tiny_split(90), tiny_split(61, seed=7))
    one = final_test.measure(*parts, dtype="float32")
    assert used == {(1, 0)}
    used.clear()
    with make_strategy(2).scope():
        two = final_test.measure(*parts, dtype="float32")
    assert used == {(2, 0), (2, 1)}
    assert two == one
    assert 0 < one["best"]["test_robust"] < one["best"]["test_clean"] < 1


def test_validation_in_training(tmp_path, used):
    """Statistics of BatchNorm are each replica's own: what is saved, and measured, is the first's."""
    source = Source("tiny", tiny_split(88), tiny_split(20, seed=7), CLASSES)
    data = Data(lambda: source, batch_size=16, validation=48)
    made = Recipe(lambda shape, classes: bn_network(), method=AT(), attack=ATTACK, learning_rate=Constant(0.02))
    train(
        recipe=dataclasses.replace(made, perturbation=Identity()),
        data=data,
        epochs=1,
        seed=0,
        workdir=str(tmp_path / "run"),
        config="c",
        validation=MEASURE,
        test=MEASURE,
        devices=2,
    )
    assert used == {(2, 0), (2, 1)}
    measured = json.loads((tmp_path / "run" / "history.json").read_text())[-1]
    network, (_, *parts) = keras_file(tmp_path / "run" / "last.keras"), data.load()
    for name, split in zip(("train", "validation"), parts, strict=True):
        alone = evaluate(network, MEASURE.batches(split, "float32"), MEASURE.attacks)
        assert alone == {"clean": measured[f"{name}/clean"], "robust": measured[f"{name}/robust"]}
    assert 0 < alone["robust"] < alone["clean"]
