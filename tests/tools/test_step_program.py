import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, tiny_network, tiny_split, weights_of

from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.methods import TRADES
from awp_tf.perturbations import AWP, Identity
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from tools.step_program import write


def recipe(precision="float64"):
    return Recipe(
        network=lambda shape, classes: tiny_network(),
        method=TRADES(),
        attack=PGD(Linf(0.1), steps=2),
        perturbation=AWP(0.02),
        learning_rate=Constant(0.1),
        precision=precision,
    )


def arrays(path):
    with np.load(path) as file:
        return [file[name] for name in sorted(file.files)]


def test_the_program_is_the_step_and_its_inputs_fit_it(tmp_path):
    data = tiny_split(8)
    said = write(str(tmp_path / "hlo"), recipe(), data.images, data.labels, CLASSES, compute=True)
    inputs, outputs = (arrays(tmp_path / "hlo" / f"{name}.npz") for name in ("inputs", "outputs"))
    assert f"inputs.npz ({len(inputs)} arrays)" in said
    program = (tmp_path / "hlo" / "step.hlo").read_text()
    layout = re.search(r"entry_computation_layout=\{\((.*?)\)->", program).group(1)
    expected = re.findall(r"([fs]\d+)\[([\d,]*)\]", layout)
    given = [(f"{a.dtype.kind.replace('i', 's')}{8 * a.itemsize}", ",".join(map(str, a.shape))) for a in inputs]
    assert expected == given
    assert (tmp_path / "hlo" / "step.hlo.pb").read_bytes()

    trainer = recipe().trainer(SHAPE, CLASSES, epochs=1, steps_per_epoch=1, seed=0)
    before = weights_of(trainer.network)
    logs = tf.function(trainer.train_step)((tf.constant(data.images, tf.float64), tf.constant(data.labels)))
    np.testing.assert_allclose(outputs[0], logs["loss"], rtol=1e-10)
    moved = [(old - new) / 0.1 for old, new in zip(before, weights_of(trainer.network), strict=True)]
    for gradient, step in zip(outputs[1:], moved, strict=True):
        np.testing.assert_allclose(gradient, step, atol=1e-9)


def test_in_float16_gradients_are_scaled_as_in_training(tmp_path):
    data, folder = tiny_split(8), tmp_path / "hlo"
    write(str(folder), recipe("mixed_float16"), data.images, data.labels, CLASSES, compute=False)
    program = (folder / "step.hlo").read_text()
    assert "constant(32768)" in program
    write(str(folder), recipe("float32"), data.images, data.labels, CLASSES, compute=False)
    assert "constant(32768)" not in (folder / "step.hlo").read_text()


def test_a_recipe_of_several_steps_a_batch_is_refused(tmp_path):
    several = dataclasses.replace(recipe(), perturbation=Identity(), replays=8)
    with pytest.raises(UserError, match="--hlo: expected a recipe of one step a batch"):
        write(str(tmp_path / "hlo"), several, np.zeros((1, *SHAPE)), np.zeros(1), CLASSES, compute=False)
    assert not (tmp_path / "hlo").exists()


def test_nothing_is_run_unless_it_is_asked_for(tmp_path):
    data = tiny_split(4)
    write(str(tmp_path), recipe("float32"), data.images, data.labels, CLASSES, compute=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["inputs.npz", "step.hlo", "step.hlo.pb"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--hlo: expected a folder"):
        write(str(tmp_path / "file"), recipe(), np.zeros((1, *SHAPE)), np.zeros(1), CLASSES, compute=False)
