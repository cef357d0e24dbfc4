"""Training with extra images, put together from Python."""

import json

import keras
import numpy as np
import pytest
from helpers import CLASSES, assert_same_weights, tiny_split

from awp_tf.attacks import PGD
from awp_tf.data import Batches, Data, ExtraData, MixedBatches, Source
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.methods import TRADES
from awp_tf.networks import small_cnn
from awp_tf.perturbations import AWP
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from awp_tf.training.train import train

ATTACK = PGD(Linf(0.1), steps=2)
MEASURE = Measurement(ATTACK, examples=20, batch_size=10)


def source():
    return Source("tiny", tiny_split(60), tiny_split(20, seed=7), CLASSES)


def network(shape, classes):
    return small_cnn(shape=shape, classes=classes, width=4)


def save(path, seed=1):
    extra = tiny_split(30, seed)
    np.savez(path, image=extra.images, label=extra.labels)
    return str(path)


def run(folder, extra, devices=1):
    settings = {"learning_rate": Constant(0.05), "perturbation": AWP(0.01), "precision": "float64"}
    return train(
        recipe=Recipe(network=network, method=TRADES(), attack=ATTACK, **settings),
        data=Data(source, batch_size=16, validation=12, extra=ExtraData(extra, ratio=0.25)),
        epochs=2,
        seed=0,
        workdir=str(folder),
        config="c",
        validation=MEASURE,
        test=MEASURE,
        devices=devices,
    )


def last(folder):
    return keras.models.load_model(folder / "last.keras")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("extra")
    run(place / "run", save(place / "extra.npz"))
    return place


def test_a_run_says_and_remembers_what_it_is_given(finished, tmp_path, capsys):
    run(tmp_path / "run", str(finished / "extra.npz"))
    assert "30 extra images: 4 of the 16 of every batch (ratio 0.25)" in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    assert kept["extra images"] == f"30, SHA-256 {tiny_split(30, 1).digest()}"
    assert_same_weights(last(tmp_path / "run"), last(finished / "run"))


@pytest.mark.slow
def test_two_devices_train_as_one_does(finished, tmp_path):
    run(tmp_path / "run", str(finished / "extra.npz"), devices=2)
    assert_same_weights(last(tmp_path / "run"), last(finished / "run"), atol=1e-10)


def test_an_interrupted_run_goes_on_bit_for_bit_and_with_its_own_extra_images_only(finished, tmp_path, monkeypatch):
    steps = []

    def signum(self):
        steps.append(1)
        return 15 if len(steps) == 2 else 0

    monkeypatch.setattr(Interrupt, "signum", property(signum))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", str(finished / "extra.npz"))
    with pytest.raises(UserError, match="its data have changed since training began: extra images 30, SHA-256"):
        run(tmp_path / "run", save(tmp_path / "other.npz", seed=2))
    run(tmp_path / "run", str(finished / "extra.npz"))
    assert_same_weights(last(tmp_path / "run"), last(finished / "run"))


def test_extra_data_that_do_not_fit_leave_no_folder(tmp_path):
    np.savez(tmp_path / "bad.npz", image=tiny_split(9).images, label=np.full(9, CLASSES))
    for path, message in (("bad.npz", r"expected labels in 0\.\.3"), ("none.npz", "expected an .npz file")):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "run", str(tmp_path / path))
    assert not (tmp_path / "run").exists()


def test_without_extra_data_batches_are_plain_ones(tmp_path):
    data = Data(source, batch_size=16, validation=12)
    found, split, _ = data.load()
    assert type(data.batches(found, split, 0, 1, "float32")) is Batches
    data = Data(source, batch_size=16, validation=12, extra=ExtraData(save(tmp_path / "a.npz")))
    assert type(data.batches(found, split, 0, 1, "float32")) is MixedBatches
    with pytest.raises(UserError, match=r"Data\.extra: expected an object such as @ExtraData\(\), received 'a\.npz'"):
        Data(source, extra="a.npz")
