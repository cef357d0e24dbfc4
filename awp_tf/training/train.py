"""The root functions that a gin file configures; the only place where all parts meet."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from awp_tf.data import Batches, Data, Source, Split
from awp_tf.data.stored import read_through
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.examples import plainly
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.devices import choose_kernels
from awp_tf.infra.errors import at_least, positive, whole_seed
from awp_tf.infra.run_folder import DataIdentity, FinalTest, RunFolder
from awp_tf.infra.workers import Workers, plainly_lost, silent
from awp_tf.perturbations import Identity
from awp_tf.schedules import at_epoch
from awp_tf.threats import Attacker, Threat, require_one_ball
from awp_tf.trainer import RobustTrainer
from awp_tf.training import final_test
from awp_tf.training.loop import Loop
from awp_tf.training.monitor import Monitor
from awp_tf.training.recipe import Recipe
from awp_tf.training.strategy import join

_OTHERWISE = ", or say train.one_ball = False where they are meant to differ"


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
    deterministic: bool = False,
    cluster: str | None = None,
    collectives: str = "auto",
    wait_seconds: float = 60.0,
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
        devices: How many devices of this machine share a batch; None is all GPUs, or one CPU.
        deterministic: GPU kernels that give the same bits in every run, slower; those of CPUs do so anyway.
        cluster: Which machines train together: None are those of TF_CONFIG, where that is set; "slurm", "kubernetes",
            "tpu"; "alone" is this one. All of them see workdir; the first, the chief, alone writes there and prints.
        collectives: How several machines add up their gradients: "auto", "ring" or "nccl" (GPUs).
        wait_seconds: How long to wait for the other machines as the run begins.
        one_ball: Refuse a run whose parts attack in different balls.
        later: What other commands will attack this run with, by name: their balls are compared, too.

    Returns:
        For "best" and "last": test and train accuracies, and the robust generalisation gap.

    Raises:
        UserError: A setting, the data, or the folder is unfit; nothing has been written.
        Interrupted: A signal came, to any of the machines; the same call goes on from there.
    """
    counts = {"epochs": epochs, "validate_every": validate_every, "patience": patience, "keep_every": keep_every}
    _require(counts, checkpoint_minutes, seed)
    folder = RunFolder.of(pathlib.Path(workdir), config, parts)
    finished = folder.finished()
    if finished is not None:  # nobody need be waited for
        print(f"{workdir} holds a finished run; nothing to do.")
        print(final_test.text(finished, folder.path, test.attack, recipe.best_by))
        return finished
    task = "\n".join([config, *(f"{module} {digest}" for module, digest in (parts or {}).items())])
    # Before TensorFlow does anything.
    choose_kernels(deterministic=deterministic)
    strategy, workers = join(devices, cluster, task, collectives=collectives, wait_seconds=wait_seconds)
    if one_ball:
        attackers = {"training": recipe.attack, "validation": validation.attack, "test": test.attack, **(later or {})}
        require_one_ball(_final_balls(attackers, epochs), _OTHERWISE)
    with silent(not workers.is_chief):
        source, batches, held_out, known = _load(data, test, workers, seed, strategy.num_replicas_in_sync, recipe.dtype)
        with strategy.scope(), plainly_lost(workers), plainly():
            trainer = recipe.trainer(
                source.shape, source.classes, epochs=epochs, steps_per_epoch=batches.steps_per_epoch, seed=seed
            )
            require_readable(trainer.averaged.network)
            monitor = Monitor(trainer, validation, batches.split, held_out, recipe.dtype, workers)
            with _claimed(folder, workers, _hparams(recipe, data, epochs, seed, source), known):
                print(_heading(source, batches, held_out, trainer, folder.path, epochs, workers), flush=True)
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
                    workers=workers,
                )
                loop.run()
                splits = batches.split, source.test
                result = final_test.measure(folder.path, test, *splits, dtype=recipe.dtype, workers=workers)
                if workers.is_chief:
                    folder.finish(result)
        print(final_test.text(result, folder.path, test.attack, recipe.best_by))
    return result


def _require(counts: Mapping[str, int | None], checkpoint_minutes: float | None, seed: int) -> None:
    for name, count in counts.items():
        if count is not None:
            at_least(name, count, 1)
    if checkpoint_minutes is not None:
        positive("checkpoint_minutes", checkpoint_minutes)
    whole_seed("seed", seed)


def _load(
    data: Data, test: Measurement, workers: Workers, seed: int, replicas: int, dtype: str
) -> tuple[Source, Batches, Split, DataIdentity]:
    """(Source, training batches, validation images, what to remember of them), the same on all workers.

    The source's training images are those of the batches, or all of them would be in memory once more.
    """
    with plainly_lost(workers), workers.together():
        source, train, validation = data.load()
        batches = data.batches(source, train, seed, replicas, dtype)
        read_through(test.subset(source.test).images)
        identity = {**source.identity, **batches.identity}
    workers.require_same("data", json.dumps(identity, indent=1))
    return dataclasses.replace(source, train=train), batches, validation, identity


@contextlib.contextmanager
def _claimed(
    folder: RunFolder, workers: Workers, hparams: Mapping[str, str | int | float], identity: DataIdentity
) -> Iterator[None]:
    """The chief holds the folder; the others see it."""
    with contextlib.ExitStack() as held:
        with workers.together():
            if workers.is_chief:
                held.enter_context(folder.begin(hparams, identity))
        with workers.together():
            folder.require_seen()
        yield


def _final_balls(attackers: Mapping[str, Attacker], epochs: int) -> dict[str, Threat | None]:
    """Those that attackers have in the end: the radius of some grows."""
    return {name: _final_ball(attacker.threat, epochs) for name, attacker in attackers.items()}


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


def _hparams(recipe: Recipe, data: Data, epochs: int, seed: int, source: Source) -> dict[str, str | int | float]:
    """What distinguishes runs, for TensorBoard's table."""
    parts = {name: repr(getattr(recipe, name)) for name in ("method", "attack", "perturbation", "learning_rate")}
    numbers = {"weight_decay": recipe.weight_decay, "batch_size": data.batch_size, "epochs": epochs, "seed": seed}
    return {"data": source.name, **parts, **numbers}


def _names(source: Source) -> str:
    return f" ({', '.join(source.class_names)})" if 0 < len(source.class_names) <= 10 else ""


def _heading(
    source: Source,
    batches: Batches,
    validation: Split,
    trainer: RobustTrainer,
    path: pathlib.Path,
    epochs: int,
    workers: Workers,
) -> str:
    idle = trainer.perturbation != Identity() and not _perturbs(trainer, epochs)
    warning = f"\nwarning: {trainer.perturbation} never sets in: the run ends before it begins." if idle else ""
    parameters = sum(int(np.prod(v.shape)) for v in trainer.network.trainable_variables)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    machines = f" of {workers.count} machines" if workers.count > 1 else ""
    return (
        f"{source.name}: {len(batches.split):,} images to train on, {len(validation):,} to validate, "
        f"{len(source.test):,} to test, {source.classes} classes{_names(source)}{batches.remark}\n"
        f"{trainer.network.name}: {parameters:,} parameters, on "
        f"{tf.distribute.get_strategy().num_replicas_in_sync} {kind}{machines}\n"
        f"{trainer.method}, {trainer.attack}, {trainer.perturbation}\n"
        f"watch it with: tensorboard --logdir {path.parent}{warning}"
    )
