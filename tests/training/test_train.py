"""Recipe, Data, train and the final report, put together from Python."""

import json

import keras
import numpy as np
import pytest
from helpers import CLASSES, assert_same_weights, tiny_split

from awp_tf.attacks import FGSM, PGD, Restarts
from awp_tf.averaging import EMA, SWA, Latest
from awp_tf.data import Data, MixUp, Source, Split, ordered
from awp_tf.data.stored import Decoded
from awp_tf.evaluation.accuracy import Measurement, evaluate, robust_gap
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.networks import small_cnn
from awp_tf.perturbations import AWP
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training.final_test import text
from awp_tf.training.recipe import Recipe
from awp_tf.training.strategy import make_strategy
from awp_tf.training.train import train

ATTACK = PGD(Linf(0.1), steps=2)
MEASURE = Measurement(ATTACK, examples=20, batch_size=10)


def source():
    return Source("tiny", tiny_split(60), tiny_split(20, seed=7), CLASSES)


def network(shape, classes):
    return small_cnn(shape=shape, classes=classes, width=4)


def recipe(**settings):
    return Recipe(**{"network": network, "method": AT(), "attack": ATTACK, "learning_rate": Constant(0.05), **settings})


def run(
    folder,
    *,
    epochs=2,
    seed=0,
    config="c",
    data=None,
    test=MEASURE,
    devices=1,
    validate_every=1,
    patience=None,
    **settings,
):
    data = data or Data(source, batch_size=16, validation=12)
    return train(
        recipe=recipe(perturbation=AWP(0.01), **settings),
        data=data,
        epochs=epochs,
        seed=seed,
        workdir=str(folder),
        config=config,
        validation=MEASURE,
        test=test,
        validate_every=validate_every,
        patience=patience,
        devices=devices,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "it"
    return folder, run(folder)


def test_everything_is_where_it_is_said_to_be(finished):
    folder, result = finished
    names = {
        ".lock",
        "best.keras",
        "last.keras",
        "checkpoints",
        "config.gin",
        "data.json",
        "history.json",
        "result.json",
        "tensorboard",
    }
    assert {f.name for f in folder.iterdir()} == names
    assert json.loads((folder / "result.json").read_text()) == result


def test_the_report_is_what_evaluating_the_saved_network_gives(finished):
    folder, result = finished
    loaded = keras.models.load_model(folder / "best.keras")
    found = evaluate(loaded, ordered(tiny_split(20, seed=7), 10), MEASURE.attacks)
    assert result["best"]["test_clean"] == found["clean"]
    assert result["best"]["test_robust"] == found["robust"]
    training = Data(source, batch_size=16, validation=12).load()[1]
    for name, row in result.items():
        loaded = keras.models.load_model(folder / f"{name}.keras")
        found = evaluate(loaded, MEASURE.batches(training, "float32"), MEASURE.attacks)
        assert row["train_robust"] == found["robust"]
        assert row["robust_gap"] == robust_gap(row["train_robust"], row["test_robust"])


def test_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    folder, result = finished
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert run(folder) == result
    assert "holds a finished run; nothing to do" in capsys.readouterr().out
    assert before == {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_another_configuration_in_the_same_folder_is_refused(finished):
    with pytest.raises(UserError, match="another configuration"):
        run(finished[0], config="d")


def test_the_same_seed_gives_the_same_network_and_another_seed_another(finished, tmp_path):
    run(tmp_path / "same")
    run(tmp_path / "other", seed=1)
    first = keras.models.load_model(finished[0] / "last.keras")
    assert_same_weights(first, keras.models.load_model(tmp_path / "same" / "last.keras"))
    other = keras.models.load_model(tmp_path / "other" / "last.keras")
    assert (np.asarray(first.weights[0]) != np.asarray(other.weights[0])).any()


def test_ema_is_what_is_saved(tmp_path, finished):
    run(tmp_path / "ema", averaging=lambda network: EMA(network, 0.9))
    ema, plain = (keras.models.load_model(folder / "last.keras") for folder in (tmp_path / "ema", finished[0]))
    assert (np.asarray(ema.weights[0]) != np.asarray(plain.weights[0])).any()


class Zeros(Latest):
    """An average that gives every image to the first class."""

    def __init__(self, network):
        super().__init__(keras.models.clone_model(network))
        self.network.set_weights([0 * weight for weight in network.get_weights()])


def test_what_is_measured_is_what_would_be_saved(tmp_path):
    run(tmp_path / "zeros", averaging=Zeros)
    held_out = Data(source, batch_size=16, validation=12).load()[2]
    for measured in json.loads((tmp_path / "zeros" / "history.json").read_text()):
        assert measured["validation/clean"] == measured["validation/robust"] == np.mean(held_out.labels == 0)


def test_two_devices_train_as_one_does_in_double_precision(tmp_path):
    for devices in (1, 2):
        run(tmp_path / str(devices), devices=devices, precision="float64")
    one, two = (keras.models.load_model(tmp_path / name / "last.keras") for name in ("1", "2"))
    assert one.weights[0].dtype == "float64"
    assert_same_weights(one, two, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": Data(source, batch_size=1000, validation=12)}, "batch_size: expected at most the 48"),
        (
            {"data": Data(source, validation=60)},
            r"validation: expected a whole number between 1 and 59 \(there are 60 images\)",
        ),
        ({"data": Data(source, validation=12, limit=0)}, r"Data\.limit"),
        ({"averaging": lambda network: SWA(network, epochs=2, start=0.9)}, r"SWA\.start: expected at most 0\.5"),
        ({"epochs": 0}, "epochs: expected a whole number >= 1"),
        ({"validate_every": 0}, "validate_every: expected a whole number >= 1"),
        ({"patience": 0}, "patience: expected a whole number >= 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_folder(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_test_image_that_cannot_be_read_is_said_before_training(tmp_path):
    pixels = tiny_split(20, seed=7)

    def decode(row):
        if row == 19:
            raise UserError("19.png: expected an image")
        return pixels.images[row]

    images = Decoded(range(20), decode, pixels.images.shape[1:], 0, str, pixels.images.dtype)
    broken = Source("tiny", tiny_split(60), Split(images, pixels.labels), CLASSES)
    with pytest.raises(UserError, match=r"^19\.png: expected an image"):
        run(tmp_path / "run", data=Data(lambda: broken, batch_size=16, validation=12))
    assert not (tmp_path / "run").exists()


def test_a_limit_takes_that_many_training_images_and_the_same_validation_images():
    _, train_split, validation = Data(source, validation=12).load()
    _, limited, same = Data(source, validation=12, limit=10).load()
    assert (len(train_split), len(limited)) == (48, 10)
    np.testing.assert_array_equal(validation.images, same.images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe(averaging=0.9), r"Recipe\.averaging: expected a function such as @EMA \(no brackets\)"),
        (lambda: Data(source, augment=None), r"Data\.augment: expected an object such as @PadCropFlip\(\) or @NoAug"),
        (lambda: Data(source, mix=MixUp), r"Data\.mix: expected an object such as @MixUp\(\), received <class"),
        (
            lambda: recipe(precision="int8"),
            r"Recipe\.precision: expected one of float32, mixed_bfloat16, mixed_float16, float64",
        ),
        (lambda: make_strategy(0), "devices: expected a whole number >= 1"),
        (lambda: make_strategy(64), "devices: expected at most 2 logical CPUs, received 64"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("attack", "name"),
    [(PGD(Linf(0.1), 20), "PGD-20"), (FGSM(Linf(0.1)), "FGSM"), (Restarts(PGD(Linf(0.1))), "robust")],
)
def test_the_table_names_the_attack(attack, name, tmp_path):
    values = dict.fromkeys(("test_clean", "test_robust", "train_robust", "robust_gap"), 0.5)
    said = text({"best": values}, tmp_path, attack)
    assert f"| {name}, test | {name}, train | robust gap |" in said
