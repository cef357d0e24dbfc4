"""Continual learning from end to end: tasks, training, result, figures."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from awp_tf.continual.loop import Loop
from awp_tf.continual.metrics import summary
from awp_tf.continual.report import Result, text
from awp_tf.continual.settings import Continual
from awp_tf.continual.tasks import Task, is_multi_head
from awp_tf.continual.trainer import ContinualTrainer
from awp_tf.data import Source
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_bytes, write_text
from awp_tf.infra.run_folder import HEADS, RunFolder
from awp_tf.infra.tensorboard import Board, not_fatal
from awp_tf.networks.build import build
from awp_tf.threats import require_one_ball


def learn(settings: Continual, workdir: str, config: str, parts: Mapping[str, str] | None = None) -> Result:
    """Learns all tasks, or goes on with an unfinished run.

    Args:
        settings: What and how.
        workdir: The run's folder: config.gin, last.keras, history.json, result.json, figures, tensorboard/,
            checkpoints/, and heads.json where tasks have classes of their own.
        config: The resolved configuration as text; a folder belongs to one.
        parts: Of a person's own, modules that were imported for them: SHA-256 by module.

    Returns:
        What result.json holds.

    Raises:
        UserError: A setting, the data, or the folder is unfit; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    _require_one_ball(settings)
    folder = RunFolder.of(pathlib.Path(workdir), config, parts)
    finished: Result | None = folder.finished()
    if finished is not None:
        print(f"{workdir} holds a finished run; nothing to do.\n{text(finished, folder.path)}")
        return finished
    source, train, validation = settings.data.load()
    tasks = settings.tasks(source, train, validation)
    trainer = _trainer(settings, source, tasks)
    with folder.begin(_hparams(settings, source), source.identity):
        print(_heading(settings, source, tasks, trainer, folder.path), flush=True)
        loop = Loop(trainer, tasks, settings, folder.path)
        loop.run()
        result = _result(settings, tasks, loop.progress.tasks)
        _write(folder.path, result, tasks, source.classes)
        folder.finish(result)
    print(text(result, folder.path))
    return result


def _trainer(settings: Continual, source: Source, tasks: Sequence[Task]) -> ContinualTrainer:
    batch, fewest = settings.data.batch_size, min(len(task.train) for task in tasks)
    if batch > fewest:
        raise UserError(f"batch_size: expected at most the {fewest} training images of a task, received {batch}.")
    keras.utils.set_random_seed(settings.seed)
    network = build(settings.learner.network, source.shape, source.classes)
    made = network.outputs[0].shape[-1]
    if made != source.classes:
        raise UserError(f"{network.name}: expected {source.classes} logits, one for each class, received {made}.")
    trainer = ContinualTrainer(
        network, settings.learner, multi_head=is_multi_head(tasks, source.classes), seed=settings.seed
    )
    require_readable(network)
    return trainer


def _require_one_ball(settings: Continual) -> None:
    attackers = {"training": settings.learner.attack, "sharpness": settings.sharpness.attack, **settings.later}
    if settings.attacks:
        attackers |= {"validation": settings.validation.attack, "test": settings.test.attack}
    require_one_ball({name: attacker.threat for name, attacker in attackers.items()})


def _result(settings: Continual, tasks: Sequence[Task], measured: Sequence[Mapping[str, Any]]) -> Result:
    """The content of result.json."""
    accuracy = {name: [after["accuracy"][name] for after in measured] for name in measured[0]["accuracy"]}
    result: Result = {
        "tasks": [
            {"name": task.name, "classes": list(task.classes), "train": len(task.train), "test": len(task.test)}
            for task in tasks
        ],
        "accuracy": accuracy,
        "summary": {name: summary(rows) for name, rows in accuracy.items()},
        "cost": [after["cost"] for after in measured],
    }
    if "rise" in measured[0]:
        result["sharpness"] = {"alphas": list(settings.sharpness.alphas), "rise": [after["rise"] for after in measured]}
    if "basis" in measured[0]:
        result["basis"] = [after["basis"] for after in measured]
    return result


def _write(path: pathlib.Path, result: Result, tasks: Sequence[Task], classes: int) -> None:
    """Everything but the result itself, which comes last."""
    from awp_tf.continual.figures import draw_figures, heat_map  # noqa: PLC0415 (training needs no figures)

    if is_multi_head(tasks, classes):
        heads = [{"name": t.name, "classes": list(t.classes), "class_names": list(t.class_names)} for t in tasks]
        write_text(path / HEADS, json.dumps(heads, indent=1) + "\n")
    with not_fatal("figures"):
        for name, content in draw_figures(result).items():
            write_bytes(path / name, content)
        Board(path / "tensorboard").picture("accuracy", heat_map(result))


def _hparams(settings: Continual, source: Source) -> dict[str, str | int | float]:
    learner = settings.learner
    parts = {name: repr(getattr(learner, name)) for name in ("method", "attack", "perturbation", "basis", "importance")}
    numbers = {"memory": learner.memory, "learning_rate": learner.learning_rate, "seed": settings.seed}
    return {"data": source.name, **parts, **numbers}


def _heading(
    settings: Continual, source: Source, tasks: Sequence[Task], trainer: ContinualTrainer, path: pathlib.Path
) -> str:
    learner = settings.learner
    parameters = sum(int(np.prod(v.shape)) for v in trainer.network.trainable_variables)
    kind = "a head each" if is_multi_head(tasks, source.classes) else "one head for all"
    layers = ", ".join(trainer.bases.layers)
    bases = f"{learner.basis}, {learner.importance}, on {layers}" if layers else "none"
    return (
        f"{source.name}: {len(tasks)} tasks, {kind}; {len(tasks[0].train):,} images to train on, "
        f"{len(tasks[0].validation):,} to validate, {len(tasks[0].test):,} to test in {tasks[0].name}\n"
        f"{trainer.network.name}: {parameters:,} parameters\n"
        f"{learner.method}, {learner.attack}, {learner.perturbation}\n"
        f"memory of {learner.memory:,} images; bases: {bases}\n"
        f"watch it with: tensorboard --logdir {path.parent}"
    )
