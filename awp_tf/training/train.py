"""The root functions that a gin file configures; the only place where all parts meet."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from awp_tf.data import Batches, Data, Source, Split
from awp_tf.evaluation.accuracy import Evaluator, Measurement, craft
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import at_least, positive, whole_seed
from awp_tf.infra.run_folder import FinalTest, RunFolder
from awp_tf.infra.tensorboard import Board
from awp_tf.perturbations import Identity
from awp_tf.schedules import at_epoch
from awp_tf.threats import Attacker, Threat, require_one_ball
from awp_tf.trainer import RobustTrainer
from awp_tf.training import final_test
from awp_tf.training.loop import Loop
from awp_tf.training.recipe import Recipe
from awp_tf.training.strategy import make_strategy


def train(
    *,
    recipe: Recipe,
    data: Data,
    epochs: int,
    seed: int,
    workdir: str,
    config: str,
    parts: Mapping[str, str] | None = None,
    validation: Measurement,
    test: Measurement,
    validate_every: int = 1,
    patience: int | None = None,
    keep_every: int | None = None,
    checkpoint_minutes: float | None = 30.0,
    devices: int | None = None,
    one_ball: bool = True,
    later: Mapping[str, Attacker] | None = None,
) -> FinalTest:
    """Trains a network, or goes on with an unfinished run, and reports how robust it is.

    Args:
        recipe: How to train.
        data: On what.
        epochs: How long.
        seed: What initial weights, order, augmentation and attacks depend on.
        workdir: The run's folder.
        config: The resolved configuration as text; a folder belongs to one.
        parts: Of a person's own, modules that were imported for them: SHA-256 by module.
        validation: Measured on validation and training images.
        test: Measured once at the end, on test and training images.
        validate_every: Measure that after every so many epochs, and after the last.
        patience: Stop after this many epochs without a better validation robust accuracy.
        keep_every: Keep the network of every so many epochs, for instance to draw landscapes through training.
        checkpoint_minutes: Save the state not only after every epoch, but whenever so many minutes are over; None does
            not. A run goes on from there bit for bit.
        devices: How many local devices share a batch; None is all GPUs, or one CPU.
        one_ball: Refuse a run whose parts attack in different balls.
        later: What other commands will attack this run with, by name: their balls are compared, too.

    Returns:
        For "best" and "last": test and train accuracies, and the robust generalisation gap.

    Raises:
        UserError: A setting, the data, or the folder is unfit; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    counts = {"epochs": epochs, "validate_every": validate_every, "patience": patience, "keep_every": keep_every}
    for name, count in counts.items():
        if count is not None:
            at_least(name, count, 1)
    if checkpoint_minutes is not None:
        positive("checkpoint_minutes", checkpoint_minutes)
    whole_seed("seed", seed)
    strategy = make_strategy(devices)  # before TensorFlow does anything
    if one_ball:
        attackers = {"training": recipe.attack, "validation": validation.attack, "test": test.attack, **(later or {})}
        require_one_ball({name: _final_ball(attacker.threat, epochs) for name, attacker in attackers.items()})
    folder = RunFolder.of(pathlib.Path(workdir), config, parts)
    finished = folder.finished()
    if finished is not None:
        said = final_test.text(finished, folder.path, test.attack, recipe.best_by)
        print(f"{workdir} holds a finished run; nothing to do.\n{said}")
        return finished
    source, train_split, validation_split = data.load()
    batches = data.batches(source, train_split, seed, strategy.num_replicas_in_sync, recipe.dtype)
    with strategy.scope():
        trainer = recipe.trainer(
            source.shape, source.classes, epochs=epochs, steps_per_epoch=batches.steps_per_epoch, seed=seed
        )
        require_readable(trainer.averaged.network)
        monitor = _Monitor(trainer, validation, train_split, validation_split, recipe.dtype)
        with folder.begin(_hparams(recipe, data, epochs, seed, source), {**source.identity, **batches.identity}):
            print(_heading(source, batches, validation_split, trainer, folder.path, epochs), flush=True)
            loop = Loop(
                trainer,
                batches,
                monitor.measure,
                epochs=epochs,
                folder=folder.path,
                best_by=recipe.best_by,
                validate_every=validate_every,
                patience=patience,
                keep_every=keep_every,
                checkpoint_minutes=checkpoint_minutes,
                after_epoch=monitor.show,
            )
            loop.run()
            result = final_test.measure(folder.path, test, train_split, source.test, dtype=recipe.dtype)
            folder.finish(result)
    print(final_test.text(result, folder.path, test.attack, recipe.best_by))
    return result


def _final_ball(threat: Threat | None, epochs: int) -> Threat | None:
    """A ball whose radius grows is the one it ends with."""
    ball = at_epoch(threat, tf.constant(epochs, tf.float64), tf.float64)
    return ball if ball is threat else dataclasses.replace(ball, epsilon=float(ball.epsilon))  # type: ignore[union-attr, type-var]


def _perturbs(trainer: RobustTrainer, epochs: int) -> bool:
    """Whether any epoch perturbs weights."""
    last = epochs - 1 / trainer.steps_per_epoch
    times = [time for time in (*range(epochs), last) if time >= trainer.perturb_from]
    now = [at_epoch(trainer.perturbation, tf.constant(time, tf.float64)) for time in times]
    return not all(perturbation.is_idle for perturbation in now)


class _Monitor:
    """Measures the network that would be saved now, on training and validation images."""

    def __init__(
        self, trainer: RobustTrainer, measurement: Measurement, train: Split, validation: Split, dtype: str
    ) -> None:
        self._network = trainer.averaged.network
        self._attack = measurement.attack
        self._evaluator = Evaluator(self._network, measurement.attacks)
        self._parts = {"train": measurement.batches(train, dtype), "validation": measurement.batches(validation, dtype)}
        self._shown = next(iter(self._parts["validation"].unbatch().batch(8)))

    def measure(self, on_batch: Callable[[int], None]) -> dict[str, float]:
        """Accuracies such as "validation/robust"."""
        measured = {part: self._evaluator(batches, on_batch) for part, batches in self._parts.items()}
        return {f"{part}/{name}": value for part, values in measured.items() for name, value in values.items()}

    def show(self, board: Board, step: int) -> None:
        """A few validation images and what the attack makes of them."""
        x, y = self._shown
        board.images(step, x, craft(self._network, self._attack, x, y))


def _hparams(recipe: Recipe, data: Data, epochs: int, seed: int, source: Source) -> dict[str, str | int | float]:
    """What distinguishes runs, for TensorBoard's table."""
    parts = {name: repr(getattr(recipe, name)) for name in ("method", "attack", "perturbation", "learning_rate")}
    numbers = {"weight_decay": recipe.weight_decay, "batch_size": data.batch_size, "epochs": epochs, "seed": seed}
    return {"data": source.name, **parts, **numbers}


def _names(source: Source) -> str:
    return f" ({', '.join(source.class_names)})" if 0 < len(source.class_names) <= 10 else ""


def _heading(
    source: Source, batches: Batches, validation: Split, trainer: RobustTrainer, path: pathlib.Path, epochs: int
) -> str:
    idle = trainer.perturbation != Identity() and not _perturbs(trainer, epochs)
    warning = f"\nwarning: {trainer.perturbation} never sets in: the run ends before it begins." if idle else ""
    parameters = sum(int(np.prod(v.shape)) for v in trainer.network.trainable_variables)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return (
        f"{source.name}: {len(batches.split):,} images to train on, {len(validation):,} to validate, "
        f"{len(source.test):,} to test, {source.classes} classes{_names(source)}{batches.remark}\n"
        f"{trainer.network.name}: {parameters:,} parameters, on "
        f"{tf.distribute.get_strategy().num_replicas_in_sync} {kind}\n"
        f"{trainer.method}, {trainer.attack}, {trainer.perturbation}\n"
        f"watch it with: tensorboard --logdir {path.parent}{warning}"
    )
