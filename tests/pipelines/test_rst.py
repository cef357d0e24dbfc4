"""Robust self-training, from pseudo-labels to a network, as a person types it."""

import signal

import gin
import keras
import numpy as np
import pytest
from helpers import assert_same_weights, run_command

from awp_tf.data import Data, ExtraData, digits
from awp_tf.infra.errors import UserError
from awp_tf.methods import TRADES
from awp_tf.networks import small_cnn
from awp_tf.perturbations import AWP, Identity
from awp_tf.schedules import LearningRate
from awp_tf.training.recipe import Recipe
from pipelines import _cli, evaluate
from tools import pseudo_label


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


@pytest.mark.parametrize(("leaf", "perturbation", "begin"), [("rst", Identity(), 0), ("rst_awp", AWP(0.005), 9 / 200)])
def test_the_recipes_are_the_settings_of_the_papers(leaf, perturbation, begin):
    _cli.parse([f"gin/{leaf}.gin"], ["EXTRA='pseudo.npz'"])
    recipe, data = _cli.call(Recipe), _cli.call(Data)
    assert (recipe.method, recipe.perturbation, recipe.perturb_from) == (TRADES(6.0), perturbation, begin)
    assert (recipe.nesterov, recipe.momentum, recipe.weight_decay, recipe.whole_epochs) == (True, 0.9, 5e-4, False)
    assert (recipe.attack.steps, recipe.attack.relative_step_size) == (10, 0.25)
    assert recipe.attack.threat.epsilon == pytest.approx(8 / 255)
    # The authors' rate in epoch e, from 1, of 200: 0.05 (1 + cos(pi (e - 1) / 200)); here it falls within epochs, too.
    rate = LearningRate(recipe.learning_rate, 196, recipe.whole_epochs)
    rates = [float(rate(196 * epoch)) for epoch in range(200)]
    np.testing.assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.arange(200) / 200)), atol=1e-5)
    assert rates[-1] > 0
    assert (data.batch_size, data.extra, data.augment.mode) == (256, ExtraData("pseudo.npz", 0.5), "zero")
    assert [gin.query_parameter(f"wide_resnet.{name}") for name in ("depth", "width")] == [28, 10]


def test_extra_data_have_to_be_named():
    with pytest.raises(UserError, match=r'%EXTRA: no file gives this macro a value\. .*"gin/rst\.gin", line \d+'):
        _cli.parse(["gin/rst.gin"], [])


def halves(place):
    """Digits as an .npz file with half of the training images, and the other half without labels."""
    source = digits()
    np.savez(place / "unlabelled.npz", image=source.train.images[700:])
    half, test = source.train.take(slice(700)), source.test
    np.savez(place / "half.npz", x_train=half.images, y_train=half.labels, x_test=test.images, y_test=test.labels)
    network = small_cnn(shape=(8, 8, 1), classes=10, width=8)
    network.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(half.images, half.labels, epochs=15, verbose=0)
    network.save(place / "standard.keras")


def flags(place, name):
    said = [f"EXTRA='{place / 'pseudo.npz'}'", f"PATH='{place / 'half.npz'}'", "AUGMENT=@NoAugment()", "EPOCHS=3"]
    said += ["Recipe.precision='float64'", "test/Measurement.examples=50", "small_cnn.width=8", "Data.validation=50"]
    files = ["gin/rst.gin", "gin/digits.gin", "gin/data/npz.gin"]
    given = [*(f"--gin_file={file}" for file in files), *(f"--gin_bindings={binding}" for binding in said)]
    return [*given, f"--workdir={place / name}"]


@pytest.mark.slow
def test_half_of_the_digits_is_labelled_by_a_network_that_learnt_from_the_other_half(tmp_path, commands):
    halves(tmp_path)
    names = {"network": "standard.keras", "data": "unlabelled.npz", "output": "pseudo.npz"}
    run_command(pseudo_label, *(f"--{flag}={tmp_path / name}" for flag, name in names.items()))
    with np.load(tmp_path / "pseudo.npz") as made:
        assert (made["label"] == digits().train.labels[700:]).mean() > 0.85
    done = commands.train(*flags(tmp_path, "whole"))
    assert "737 extra images: 32 of the 64 of every batch (ratio 0.5)" in done.stdout, done
    process = commands.start("pipelines.train", *flags(tmp_path, "killed"))
    process.until(lambda: list(tmp_path.glob("killed/checkpoints/*.index")))
    process.send_signal(signal.SIGKILL)
    process.end()
    assert not (tmp_path / "killed" / "result.json").exists()
    done = commands.train(*flags(tmp_path, "killed"))
    assert "going on from epoch" in done.stdout, done
    assert_same_weights(*(keras.models.load_model(tmp_path / name / "last.keras") for name in ("whole", "killed")))
    (tmp_path / "pseudo.npz").unlink()  # what comes after training does not need it
    few = [f"--workdir={tmp_path / 'whole'}", "--attacks=fgsm", "--max_examples=20", "--check_examples=1"]
    run_command(evaluate, *few, f"--output={tmp_path / 'evaluation'}")
    assert (tmp_path / "evaluation" / "evaluation.json").exists()
