"""The root functions that a gin file configures; the only place where all parts meet."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from awp_tf import data as data_lib
from awp_tf import report
from awp_tf.board import Board
from awp_tf.checks import UserError, at_least
from awp_tf.data import Augment, Batches, NoAugment, Source, Split
from awp_tf.evaluation import Evaluator, Measurement, craft
from awp_tf.loop import Loop
from awp_tf.recipe import Recipe
from awp_tf.run_folder import Result, RunFolder
from awp_tf.trainer import RobustTrainer


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        source: Called without arguments, reads the data.
        batch_size: Over all replicas together.
        augment: Done to training images.
        validation: How many training images (or which fraction below 1) are held out to choose the
            best network; None is 1,000 or 2 %, whichever is less.
        validation_seed: Which ones; the same for all runs unless changed.
        limit: Use only so many training images; None uses all.
    """

    source: Callable[[], Source]
    batch_size: int = 128
    augment: Augment = NoAugment()
    validation: int | float | None = None
    validation_seed: int = 0
    limit: int | None = None

    def load(self) -> tuple[Source, Split, Split]:
        """(Source, training images, validation images)."""
        source = self.source()
        train, validation = data_lib.hold_out(source.train, self.validation, self.validation_seed)
        if self.limit is not None:
            at_least("Data.limit", self.limit, 1)
            chosen = np.random.RandomState(self.validation_seed).permutation(len(train))[: self.limit]
            train = train.take(np.sort(chosen))
        return source, train, validation


def train(
    *,
    recipe: Recipe,
    data: Data,
    epochs: int,
    seed: int,
    workdir: str,
    config: str,
    validation: Measurement = Measurement(),
    test: Measurement = Measurement(),
    validate_every: int = 1,
    patience: int | None = None,
    keep_every: int | None = None,
    devices: int | None = None,
) -> Result:
    """Trains a network, or goes on with an unfinished run, and reports how robust it is.

    Args:
        recipe: How to train.
        data: On what.
        epochs: How long.
        seed: What initial weights, order, augmentation and attacks depend on.
        workdir: The run's folder.
        config: The resolved configuration as text; a folder belongs to one.
        validation: Measured on validation and training images.
        test: Measured once at the end, on test and training images.
        validate_every: Measure that after every so many epochs, and after the last.
        patience: Stop after this many epochs without a better validation robust accuracy.
        keep_every: Keep the network of every so many epochs, for instance to draw landscapes through training.
        devices: How many local devices share a batch; None is all GPUs, or one CPU.

    Returns:
        For "best" and "last": test and train accuracies, and the robust generalisation gap.

    Raises:
        UserError: A setting, the data, or the folder is unfit; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    at_least("epochs", epochs, 1)
    at_least("validate_every", validate_every, 1)
    if patience is not None:
        at_least("patience", patience, 1)
    if keep_every is not None:
        at_least("keep_every", keep_every, 1)
    folder = RunFolder(pathlib.Path(workdir), config)
    finished = folder.result()
    if finished is not None:
        print(f"{workdir} holds a finished run; nothing to do.\n{report.text(finished, folder.path, test.attack)}")
        return finished
    strategy = make_strategy(devices)
    source, train_split, validation_split = data.load()
    batches = Batches(
        train_split, data.batch_size, data.augment, seed, strategy.num_replicas_in_sync, dtype=recipe.dtype
    )
    with strategy.scope():
        trainer = recipe.trainer(source.shape, source.classes, steps_per_epoch=batches.steps_per_epoch, seed=seed)
        monitor = _Monitor(trainer, validation, train_split, validation_split, recipe.dtype)
        with folder.opened(_hparams(recipe, data, epochs, seed, source)):
            print(_heading(source, train_split, validation_split, trainer, folder.path), flush=True)
            loop = Loop(
                trainer,
                batches,
                monitor.measure,
                epochs=epochs,
                folder=folder.path,
                validate_every=validate_every,
                patience=patience,
                keep_every=keep_every,
                after_epoch=monitor.show,
            )
            loop.run()
            result = report.measure(folder.path, test, train_split, source.test, dtype=recipe.dtype)
            folder.finish(result)
    print(report.text(result, folder.path, test.attack))
    return result


def make_strategy(devices: int | None) -> tf.distribute.Strategy:
    """The default strategy on one device, MirroredStrategy on several.

    Args:
        devices: How many GPUs, or (where there is none) CPUs; None is all GPUs, or one CPU. Several
            CPUs are slices of the one there is: good for trying out, not for speed.

    Raises:
        UserError: There are not so many.
    """
    gpus = tf.config.list_physical_devices("GPU")
    count = max(1, len(gpus)) if devices is None else devices
    at_least("devices", count, 1)
    if count == 1:
        return tf.distribute.get_strategy()
    if gpus:
        if count > len(gpus):
            raise UserError(f"devices: expected at most the {len(gpus)} GPUs of this machine, received {count}.")
        return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(count)])
    _slice_cpu(count)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(count)], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _slice_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:  # TensorFlow already runs, with as many as it was given then
        available = len(tf.config.list_logical_devices("CPU"))
        if available < count:
            raise UserError(f"devices: expected at most {available} logical CPUs, received {count}.") from None


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


def _heading(source: Source, train: Split, validation: Split, trainer: RobustTrainer, path: pathlib.Path) -> str:
    parameters = sum(int(np.prod(v.shape)) for v in trainer.network.trainable_variables)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return (
        f"{source.name}: {len(train):,} images to train on, {len(validation):,} to validate, {len(source.test):,} to "
        f"test, {source.classes} classes\n"
        f"{trainer.network.name}: {parameters:,} parameters, on "
        f"{tf.distribute.get_strategy().num_replicas_in_sync} {kind}\n"
        f"{trainer.method}, {trainer.attack}, {trainer.perturbation}\n"
        f"watch it with: tensorboard --logdir {path.parent}"
    )
