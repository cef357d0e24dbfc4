"""The training step as an XLA program in a file, with its inputs (--hlo of tools.benchmark)."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from awp_tf.examples import examples, share_of
from awp_tf.functional import read
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_arrays, write_bytes, write_text
from awp_tf.networks.convolution import as_keras_does
from awp_tf.step import Now
from awp_tf.trainer import RobustTrainer
from awp_tf.training.recipe import Recipe


def write(folder: str, recipe: Recipe, x: np.ndarray, y: np.ndarray, classes: int, *, compute: bool) -> str:
    """Writes step.hlo, step.hlo.pb, inputs.npz and, on demand, outputs.npz.

    The program maps weights, BatchNorm's state, images and labels to the loss, its gradient at the worst weights with
    weight decay, and the new state: the first step of a run, all but the optimizer's update. Convolutions are XLA's.

    Args:
        folder: Where to.
        recipe: Whose step; xla and the number of devices play no part.
        x: Images [B, H, W, C] in [0, 1].
        y: Labels [B].
        classes: How many there are.
        compute: Whether to run it here, too, and keep what it gives.

    Returns:
        What was written, as a line.

    Raises:
        UserError: That is no folder, or the recipe takes several steps a batch.
    """
    place = pathlib.Path(folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"--hlo: expected a folder, received {folder!r}.")
    if recipe.replays > 1:
        raise UserError(f"--hlo: expected a recipe of one step a batch, received Recipe.replays = {recipe.replays}.")
    trainer = recipe.trainer(x.shape[1:], classes, epochs=1, steps_per_epoch=1, seed=0)
    inputs = _inputs(trainer, recipe.dtype, x, y)
    loss_scale = float(trainer.optimizer.scale_loss(tf.ones([])))
    with as_keras_does():
        program = tf.function(lambda *given: _step(trainer, given, loss_scale), jit_compile=True, autograph=False)
        lowered = program.experimental_get_compiler_ir(*inputs)
        text, binary = lowered(stage="hlo"), lowered(stage="hlo_serialized")
        outputs = program(*inputs) if compute else []
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "step.hlo", text)
    write_bytes(place / "step.hlo.pb", binary)
    _write_arrays(place / "inputs.npz", inputs)
    if compute:
        _write_arrays(place / "outputs.npz", outputs)
    return f"written to {place}: step.hlo ({text.count(chr(10))} lines), step.hlo.pb, inputs.npz ({len(inputs)} arrays)"


def _inputs(trainer: RobustTrainer, dtype: str, x: np.ndarray, y: np.ndarray) -> list[tf.Tensor]:
    network = trainer.network
    images = [tf.constant(x, dtype), tf.constant(y, tf.int32)]
    return [*read(network.trainable_variables), *read(network.non_trainable_variables), *images]


def _step(trainer: RobustTrainer, given: tuple[tf.Tensor, ...], loss_scale: float) -> list[tf.Tensor]:
    """[Loss, its gradient for each weight, the new state] of the step before which nothing was trained."""
    *values, x, y = given
    count = len(trainer.network.trainable_variables)
    batch = share_of(examples((x, y), trainer.network.outputs[0].shape[-1]))
    begin = tf.zeros([], tf.float64), tf.zeros([], tf.int64)
    now = Now(values[:count], values[count:], batch, *begin, loss_scale=loss_scale)
    x_adv, points, states = trainer.pure_step.search(now)
    loss, gradients, state = trainer.pure_step.descent(now, points, states, x_adv)
    return [loss, *gradients, *state]


def _write_arrays(path: pathlib.Path, tensors: list[Any]) -> None:
    """In order: 0000, 0001, ..."""
    write_arrays(path, {f"{number:04}": np.asarray(tensor) for number, tensor in enumerate(tensors)})
