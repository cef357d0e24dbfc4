"""Continual learning from end to end, on tasks that are learned in a second."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHAPE, assert_same_weights, tiny_split
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from awp_tf.attacks import PGD, Clean
from awp_tf.continual.basis import Basis
from awp_tf.continual.early_stop import EarlyStop, NoEarlyStop
from awp_tf.continual.importance import Importance
from awp_tf.continual.learn import learn
from awp_tf.continual.loop import Loop
from awp_tf.continual.settings import Continual, Learner, Sharpness
from awp_tf.continual.tasks import SplitClasses
from awp_tf.continual.trainer import ContinualTrainer
from awp_tf.data import Data, MixUp, Split
from awp_tf.data.sources import source_of
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupted
from awp_tf.methods import AT, Standard
from awp_tf.perturbations import FS
from awp_tf.threats import L2, Linf


def source():
    return source_of("tiny", tiny_split(120), tiny_split(60, seed=1), ["a", "b", "c", "d"])


def network(shape, classes):
    inputs = keras.Input(shape)
    x = keras.layers.Dense(12, activation="relu", use_bias=False, name="dense")(keras.layers.Flatten()(inputs))
    x = keras.layers.Dropout(0.1)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, use_bias=False, name="logits")(x), name="two_layers")


def settings(learner=None, **others):
    learner = {"method": Standard(), "attack": Clean(), "perturbation": FS(2, 0.05), "memory": 20, **(learner or {})}
    basis = {"basis": Basis(0.8, 0.01, 20), "importance": Importance("clip"), "learning_rate": 0.1, "glances": 2}
    measured = Measurement(learner["attack"], examples=None)
    return Continual(
        **{
            "learner": Learner(network=network, **{**basis, **learner}),
            "data": Data(source, batch_size=8, validation=24),
            "tasks": SplitClasses(2),
            "validation": measured,
            "test": measured,
            "epochs": 3,
            "sharpness": Sharpness(learner["attack"], directions=2, alphas=(0.5,), examples=20),
            **others,
        }
    )


def test_a_run_learns_its_tasks_and_writes_what_it_promises(tmp_path, capsys):
    result = learn(settings(), str(tmp_path / "run"), "config")
    rows = result["accuracy"]["clean"]
    assert [len(row) for row in rows] == [1, 2]
    assert min(rows[0][0], rows[1][1]) > 0.8
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert {"last.keras", "result.json", "history.json", "heads.json", "config.gin", "tensorboard"} <= names
    assert {"accuracy.png", "sharpness.png"} <= names
    assert [len(each) for each in result["sharpness"]["rise"]] == [1, 2]
    assert result["basis"][1]["dense"][1] == 64
    assert "logits" not in result["basis"][1]
    heads = json.loads((tmp_path / "run" / "heads.json").read_text())
    assert [head["class_names"] for head in heads] == [["a", "b"], ["c", "d"]]
    said = capsys.readouterr().out
    assert "BWT" in said
    assert "learning accuracy" in said
    again = learn(settings(), str(tmp_path / "run"), "config")
    assert again["accuracy"] == result["accuracy"]
    assert "nothing to do" in capsys.readouterr().out


def test_tensorboard_has_the_matrix_and_the_curves(tmp_path):
    learn(settings(), str(tmp_path / "run"), "config")
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    last = {tag: found.Tensors(tag)[-1] for tag in ("accuracy", "test clean/task 1", "mean/clean", "sharpness/task 2")}
    assert tf.make_ndarray(last["accuracy"].tensor_proto)[2].startswith(b"\x89PNG")
    assert last["test clean/task 1"].step == 2
    assert {"train/loss", "importance", "learning_rate", "basis/dense"} <= set(found.Tags()["tensors"])


def test_bases_that_leave_hardly_a_direction_are_said(tmp_path, capsys):
    learn(settings({"basis": Basis(1.0, 0.0, 80), "memory": 80}), str(tmp_path / "run"), "config")
    assert re.search(r"after task 2 the basis of layer dense spans (all|\d+ of) its 64 inputs", capsys.readouterr().err)


def loop_of(chosen, folder, stop_after=None, monkeypatch=None):
    folder.mkdir(exist_ok=True)
    whole, train, validation = chosen.data.load()
    tasks = chosen.tasks(whole, train, validation)
    keras.utils.set_random_seed(0)
    trainer = ContinualTrainer(network(SHAPE, 4), chosen.learner, multi_head=True)
    loop = Loop(trainer, tasks, chosen, folder)
    count = [0]
    use = loop._use

    def counted(*arguments):
        use(*arguments)
        count[0] += 1
        if count[0] == stop_after:
            raise Interrupted(15)

    loop._use = counted
    return loop, trainer


EARLY = EarlyStop(patience=1, factor=4.0)


@pytest.mark.parametrize(("stop_after", "early_stop"), [(4, EARLY), (16, NoEarlyStop()), (25, EARLY)], ids=repr)
def test_a_stopped_run_goes_on_bit_for_bit(stop_after, early_stop, tmp_path):
    """In the first task, between tasks, and in the second, where there are bases."""
    chosen = settings(early_stop=early_stop, sharpness=Sharpness(directions=0))
    whole, expected = loop_of(chosen, tmp_path / "whole")
    whole.run()
    first, _ = loop_of(chosen, tmp_path / "run", stop_after)
    with pytest.raises(Interrupted):
        first.run()
    second, found = loop_of(chosen, tmp_path / "run")
    second.run()
    assert_same_weights(found.network, expected.network)
    for one, other in zip(found.importance.raw, expected.importance.raw, strict=True):
        np.testing.assert_array_equal(one, other)
    assert second.progress.history == whole.progress.history
    assert [t["accuracy"] for t in second.progress.tasks] == [t["accuracy"] for t in whole.progress.tasks]
    assert second._memory.serialize() == whole._memory.serialize()


def test_an_early_stop_ends_with_the_best_weights(tmp_path):
    chosen = settings(
        {"learning_rate": 2.0}, epochs=8, early_stop=EarlyStop(1, 4.0, 0.1), sharpness=Sharpness(directions=0)
    )
    loop, _ = loop_of(chosen, tmp_path / "run")
    loop.run()
    first = [epoch for epoch in loop.progress.history if epoch["task"] == 1]
    assert len(first) < 8
    losses = [epoch["validation/loss"] for epoch in loop.progress.history if epoch["task"] == 2]
    loop.progress.task = 1
    assert loop._measure.validation_loss(1, lambda images: None) == pytest.approx(min(losses), rel=1e-5)


def test_adversarial_training_measures_robust_accuracy_over_tasks(tmp_path):
    attack = PGD(Linf(0.1), steps=2, relative_step_size=0.5)
    result = learn(settings({"method": AT(), "attack": attack}), str(tmp_path / "run"), "config")
    assert set(result["summary"]) == {"clean", "robust"}
    clean, robust = (result["accuracy"][name] for name in ("clean", "robust"))
    assert all(r <= c for rs, cs in zip(robust, clean, strict=True) for r, c in zip(rs, cs, strict=True))
    assert robust[1][1] > 0.3


def test_accuracy_is_that_of_the_saved_network_on_the_test_images_of_a_task(tmp_path):
    wrong = tiny_split(60, seed=1)
    wrong = Split(wrong.images, np.where(np.arange(60) % 3, wrong.labels, wrong.labels ^ 1).astype(np.int32))
    data = Data(lambda: source_of("tiny", tiny_split(120), wrong, list("abcd")), batch_size=8, validation=24)
    chosen = settings(data=data, sharpness=Sharpness(directions=0))
    result = learn(chosen, str(tmp_path / "run"), "config")
    last = keras.models.load_model(tmp_path / "run" / "last.keras")
    for task, accuracy in zip(chosen.tasks(*chosen.data.load()), result["accuracy"]["clean"][-1], strict=True):
        logits = last.predict(task.test.images, verbose=0)[:, list(task.classes)]
        assert accuracy == pytest.approx(np.mean(logits.argmax(1) == task.test.labels))
        assert accuracy < 0.9


def test_bases_that_grow_keep_what_they_had_and_a_memory_takes_an_image_once(tmp_path):
    learner = {"basis": Basis(0.8, 0.01, 20, from_task=True), "memory": 500}
    loop, trainer = loop_of(settings(learner, sharpness=Sharpness(directions=0)), tmp_path / "run")
    before, extend = [], trainer.bases.extend

    def watched(*given, **how):
        before.append([value.numpy() for value in trainer.bases.values])
        extend(*given, **how)

    trainer.bases.extend = watched
    loop.run()
    assert len(before) == 2
    for then, now in zip(before[1], trainer.bases.values, strict=True):
        kept = then.any(axis=0)
        assert kept.any()
        np.testing.assert_allclose(now.numpy()[:, kept], then[:, kept], atol=1e-6)
    images = loop._memory.draw(500, 0).images
    assert len(np.unique(images, axis=0)) == len(loop._memory) == 96


def test_one_head_for_all_classes_has_no_heads_file(tmp_path):
    chosen = settings(tasks=SplitClasses(2, multi_head=False), sharpness=Sharpness(directions=0))
    result = learn(chosen, str(tmp_path / "run"), "config")
    assert not (tmp_path / "run" / "heads.json").exists()
    assert "logits" in result["basis"][0]
    assert result["tasks"][1]["classes"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"learner": {"memory": 5}}, r"Learner\.memory: expected at least the 8 images of a batch"),
        ({"data": Data(source, batch_size=8, mix=MixUp())}, r"Continual\.data: expected no mix"),
        ({"epochs": 0}, r"Continual\.epochs: expected a whole number >= 1"),
        (
            {"data": Data(source, batch_size=80, validation=24), "learner": {"memory": 90}},
            "batch_size: expected at most",
        ),
        ({"tasks": SplitClasses(5)}, r"SplitClasses\.count: expected a number of tasks that share the 4 classes"),
        ({"sharpness": Sharpness(PGD(L2(1.0))), "learner": {"method": AT(), "attack": PGD(Linf(0.1))}}, "one ball"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(others, message, tmp_path):
    with pytest.raises(UserError, match=message):
        learn(settings(**others), str(tmp_path / "run"), "config")
    assert not (tmp_path / "run").exists()


def test_heads_and_labels_that_do_not_fit_are_refused(tmp_path):
    small = dataclasses.replace(settings().learner, network=lambda shape, classes: network(shape, 3))
    with pytest.raises(UserError, match="two_layers: expected 4 logits, one for each class, received 3"):
        learn(dataclasses.replace(settings(), learner=small), str(tmp_path / "run"), "config")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="task 1: the loss is"):
        learn(settings({"learning_rate": 1e30, "limit": 1e30}), str(tmp_path / "run"), "config")
