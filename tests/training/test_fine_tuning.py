"""gin/pretrain.gin from a run's network, as a person starts it."""

import signal

import gin
import numpy as np
import pytest

from awp_tf.data import Data
from awp_tf.methods import AT
from awp_tf.networks.classifier import keras_file
from awp_tf.perturbations import AWP, Identity
from awp_tf.schedules import Cosine
from awp_tf.training.recipe import Recipe
from pipelines import _cli

QUICK = ("EPOCHS=2", "Data.limit=64", "Data.validation=20", "BATCH_SIZE=32")
FEW = ("validation/Measurement.examples=20", "test/Measurement.examples=20", "Recipe.precision='float64'")


def flags(*bindings):
    return [f"--gin_bindings={binding}" for binding in (*QUICK, *FEW, *bindings)]


def arguments(first, workdir, *bindings, leaf="pretrain"):
    files = (f"gin/{leaf}.gin", "gin/digits.gin", "gin/networks/pretrained.gin")
    said = flags(f"PRETRAINED='{first}'", *bindings)
    return [*(f"--gin_file={file}" for file in files), *said, f"--workdir={workdir}"]


@pytest.fixture(scope="module")
def first(tmp_path_factory, commands):
    """A network that was pre-trained on the digits 0 to 4."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    half = (
        "small_cnn.width=4",
        "DATA=@only_classes",
        "only_classes.source=@digits",
        "only_classes.classes=(0, 1, 2, 3, 4)",
    )
    done = commands.train("--gin_file=gin/at.gin", "--gin_file=gin/digits.gin", *flags(*half), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir / "best.keras"


def arrays(file):
    return [np.asarray(w) for w in keras_file(file).weights]


@pytest.mark.parametrize(("leaf", "perturbation"), [("pretrain", Identity()), ("pretrain_awp", AWP(0.005))])
def test_fine_tuning_is_the_setting_of_its_paper(leaf, perturbation):
    _cli.parse([f"gin/{leaf}.gin"], ["PRETRAINED='best.keras'"])
    recipe, data = (gin.get_configurable(thing.__name__)() for thing in (Recipe, Data))
    gin.clear_config()
    assert isinstance(recipe.method, AT)
    assert recipe.perturbation == perturbation
    assert recipe.learning_rate == Cosine(0.001, 50)
    assert (recipe.nesterov, recipe.momentum, recipe.weight_decay) == (True, 0.9, 5e-4)
    assert (data.batch_size, recipe.perturb_from) == (128, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ["pretrain", "pretrain_awp"])
def test_a_run_is_fine_tuned_to_other_classes_and_goes_on_where_it_stopped(leaf, first, commands, tmp_path):
    done = commands.train(*arguments(first, tmp_path / "whole", leaf=leaf))
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 classes" in done.stdout
    again = arguments(first, tmp_path / "part", leaf=leaf)
    process = commands.start("pipelines.train", *again)
    process.until(lambda: list((tmp_path / "part").glob("checkpoints/*.index")))
    process.send_signal(signal.SIGTERM)
    process.end()
    assert not (tmp_path / "part" / "result.json").exists()
    done = commands.train(*again)
    assert "going on from epoch" in done.stdout, done.stderr
    for one, other in zip(*(arrays(tmp_path / name / "last.keras") for name in ("whole", "part")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_only_the_last_layers_are_trained_where_that_is_said(first, commands, tmp_path):
    done = commands.train(*arguments(first, tmp_path / "run", "pretrained.trainable=2"))
    assert (done.returncode, done.stderr) == (0, "")
    before, after = arrays(first), arrays(tmp_path / "run" / "last.keras")
    same = [np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True] * 8 + [False] * 4


def test_a_file_that_is_not_there_is_one_line(commands, tmp_path):
    done = commands.train(*arguments("nothing.keras", tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.strip() == "error: pretrained.path: expected a .keras file, received 'nothing.keras'."
    assert not (tmp_path / "run").exists()
