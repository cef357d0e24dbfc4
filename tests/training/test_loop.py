import itertools
import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_split, tiny_trainer

from awp_tf.attacks import PGD, Clean
from awp_tf.data import Batches, NoAugment, ordered
from awp_tf.evaluation.accuracy import Evaluator, Measurement
from awp_tf.infra.errors import UserError
from awp_tf.infra.run_folder import kept_epochs
from awp_tf.infra.signals import Interrupted
from awp_tf.methods import Standard
from awp_tf.perturbations import Identity
from awp_tf.threats import Linf
from awp_tf.training import loop as loop_module
from awp_tf.training.loop import Loop

BATCHES = Batches(tiny_split(40), 16)  # 3 steps an epoch


def plain():
    """Ordinary training: enough where it does not matter what a step is."""
    return tiny_trainer(rate=0.05, method=Standard(), attack=Clean(), perturbation=Identity())


def make_loop(folder, trainer=None, *, epochs=3, batches=BATCHES, validate=None, **settings):
    trainer = trainer or plain()
    if validate is None:
        evaluator = Evaluator(trainer.averaged.network, Measurement(PGD(Linf(8 / 255))).attacks)

        def validate(on_batch):
            found = evaluator(ordered(tiny_split(20, seed=5), 10), on_batch)
            return {f"{part}/{name}": value for part in ("train", "validation") for name, value in found.items()}

    return Loop(trainer, batches, validate, epochs=epochs, folder=folder, **settings), trainer


def fixed(*robust):
    """Validation that gives these robust accuracies, one after the other."""
    values = iter(robust)

    def validate(on_batch):
        value = next(values)
        return {f"{part}/{name}": value for part in ("train", "validation") for name in ("clean", "robust")}

    return validate


def signal_after(steps, trainer):
    """Sends SIGTERM to this process once the trainer has taken so many steps."""
    original, counter = trainer.averaged.update, itertools.count(1)

    def update(step, epoch):
        original(step, epoch)
        tf.py_function(lambda: signal.raise_signal(signal.SIGTERM) if next(counter) == steps else None, [], [])

    trainer.averaged.update = update


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    loop, trainer = make_loop(folder, tiny_trainer(rate=0.05))
    loop.run()
    return folder, trainer, loop


def test_a_run_leaves_networks_checkpoints_and_curves(uninterrupted):
    folder, trainer, loop = uninterrupted
    files = {"best.keras", "last.keras", "checkpoints", "history.json", "tensorboard"}
    assert {f.name for f in folder.iterdir()} == files
    assert_same_weights(keras.models.load_model(folder / "last.keras"), trainer.network)
    assert (loop.progress.epoch, loop.progress.step) == (3, 9)


def test_history_holds_what_was_measured_after_each_epoch(uninterrupted):
    folder, _, loop = uninterrupted
    history = json.loads((folder / "history.json").read_text())
    assert [(epoch["epoch"], epoch["step"]) for epoch in history] == [(1, 3), (2, 6), (3, 9)]
    assert max(epoch["validation/robust"] for epoch in history) == loop.progress.best


def test_networks_of_epochs_are_kept_where_asked_for(tmp_path, uninterrupted):
    loop, _ = make_loop(tmp_path, tiny_trainer(rate=0.05), keep_every=2)
    loop.run()
    kept = kept_epochs(tmp_path)
    assert list(kept) == [2]
    assert_same_weights(keras.models.load_model(tmp_path / "last.keras"), uninterrupted[1].network)
    assert kept_epochs(uninterrupted[0]) == {}


def test_loop_and_fit_give_the_same_weights(uninterrupted):
    trainer = tiny_trainer(rate=0.05)
    trainer.fit(BATCHES.dataset(0, 9), verbose=0, shuffle=False)
    assert_same_weights(trainer.network, uninterrupted[1].network)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_resume_after_a_signal_equals_no_signal_bit_for_bit(tmp_path, uninterrupted, step):
    loop, trainer = make_loop(tmp_path, tiny_trainer(rate=0.05))
    signal_after(step, trainer)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.run()
    assert not (tmp_path / "last.keras").exists()
    loop, trainer = make_loop(tmp_path, tiny_trainer(rate=0.05))
    loop.run()
    assert_same_weights(trainer.network, uninterrupted[1].network)
    assert loop.progress == uninterrupted[2].progress


def test_a_signal_during_validation_loses_no_training(tmp_path, uninterrupted):
    def stop(on_batch):
        signal.raise_signal(signal.SIGINT)
        on_batch(1)

    loop, _ = make_loop(tmp_path, tiny_trainer(rate=0.05), validate=stop)
    with pytest.raises(Interrupted, match="SIGINT"):
        loop.run()
    assert (loop.progress.step, loop.progress.epoch) == (3, 0)
    loop, trainer = make_loop(tmp_path, tiny_trainer(rate=0.05))
    loop.run()
    assert_same_weights(trainer.network, uninterrupted[1].network)
    assert loop.progress == uninterrupted[2].progress


def test_a_finished_loop_trains_no_more(tmp_path):
    make_loop(tmp_path, epochs=1)[0].run()
    before = (tmp_path / "last.keras").read_bytes()
    loop, _ = make_loop(tmp_path, epochs=1)
    loop.run()
    assert loop.progress.step == 3
    assert (tmp_path / "last.keras").read_bytes() == before


def test_best_is_the_epoch_with_the_highest_validation_robust_accuracy(tmp_path):
    loop, _ = make_loop(tmp_path, epochs=4, validate=fixed(0.1, 0.5, 0.5, 0.2))
    loop.run()
    assert (loop.progress.best, loop.progress.best_epoch) == (0.5, 2)


def test_saved_networks_are_those_of_their_epochs(tmp_path):
    make_loop(tmp_path, validate=fixed(0.1, 0.5, 0.2), keep_every=1)[0].run()
    best, last = (keras.models.load_model(tmp_path / f"{name}.keras") for name in ("best", "last"))
    kept = {epoch: keras.models.load_model(file) for epoch, file in kept_epochs(tmp_path).items()}
    assert_same_weights(best, kept[2])
    assert_same_weights(last, kept[3])
    trainer = plain()
    trainer.fit(BATCHES.dataset(0, 6), verbose=0, shuffle=False)
    assert_same_weights(best, trainer.network)


def test_measures_every_so_many_epochs_and_the_last(tmp_path, capsys):
    loop, _ = make_loop(tmp_path, epochs=5, validate=fixed(0.5, 0.4, 0.3), validate_every=2)
    loop.run()
    history = json.loads((tmp_path / "history.json").read_text())
    assert [epoch.get("validation/robust") for epoch in history] == [None, 0.5, None, 0.4, 0.3]
    assert (loop.progress.best, loop.progress.best_epoch) == (0.5, 2)
    lines = capsys.readouterr().out.splitlines()
    assert ["validation" in line for line in lines] == [False, True, False, True, True]


def test_patience_counts_epochs_also_where_not_each_is_measured(tmp_path):
    loop, _ = make_loop(tmp_path, epochs=9, validate=fixed(0.5, 0.4, 0.3), validate_every=2, patience=3)
    loop.run()
    assert loop.progress.epoch == 6
    assert (tmp_path / "last.keras").exists()


def test_patience_stops_early_and_keeps_the_last_network(tmp_path, capsys):
    loop, _ = make_loop(tmp_path, epochs=9, validate=fixed(0.3, 0.5, 0.4, 0.4, 0.4), patience=2)
    loop.run()
    assert loop.progress.epoch == 4
    assert (tmp_path / "last.keras").exists()
    assert capsys.readouterr().out.count("epoch ") == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_names_the_step_and_keeps_the_last_good_state(tmp_path, bad):
    trainer = plain()
    step_of = trainer.train_step
    poison = lambda step, loss: tf.where(step == 5, tf.constant(bad, loss.dtype), loss)  # noqa: E731

    def train_step(batch):
        step = tf.convert_to_tensor(trainer.optimizer.iterations.value)
        logs = step_of(batch)
        return {**logs, "loss": poison(step, logs["loss"])}

    trainer.train_step = train_step
    loop, _ = make_loop(tmp_path, trainer)
    with pytest.raises(UserError, match=rf"step 5: the loss is {bad}"):
        loop.run()
    assert {f.stem.split(".")[0] for f in (tmp_path / "checkpoints").iterdir()} == {"step-3"}


def test_an_epoch_of_which_no_step_was_taken_is_no_number_and_the_next_one_is(tmp_path):
    trainer = plain()
    step_of = trainer.train_step

    def train_step(batch):
        step = tf.convert_to_tensor(trainer.optimizer.iterations.value)
        logs = step_of(batch)
        loss = tf.where(step < 3, tf.constant(np.nan, logs["loss"].dtype), logs["loss"])
        return {**logs, "loss": loss, "loss_scale": tf.constant(1024.0)}

    trainer.train_step = train_step
    make_loop(tmp_path, trainer)[0].run()
    losses = [epoch["train/epoch_loss"] for epoch in json.loads((tmp_path / "history.json").read_text())]
    assert np.isnan(losses[0])
    assert np.isfinite(losses[1:]).all()


@pytest.mark.parametrize(("scale", "goes_on"), [(1024.0, True), (0.5, False)])
def test_in_float16_a_step_that_overflowed_is_left_out_while_the_scale_can_be_halved(
    tmp_path, scale, goes_on, monkeypatch
):
    monkeypatch.setattr(loop_module, "_STEPS_PER_FETCH", 1)
    trainer = plain()
    step_of = trainer.train_step

    def train_step(batch):
        step = tf.convert_to_tensor(trainer.optimizer.iterations.value)
        logs = step_of(batch)
        loss = tf.where(step == 1, tf.constant(np.nan, logs["loss"].dtype), logs["loss"])
        return {**logs, "loss": loss, "loss_scale": tf.constant(scale)}

    trainer.train_step = train_step
    loop, _ = make_loop(tmp_path, trainer)
    if not goes_on:
        with pytest.raises(UserError, match="step 1: the loss is nan"):
            loop.run()
        return
    loop.run()
    history = json.loads((tmp_path / "history.json").read_text())
    assert all(np.isfinite(epoch["train/epoch_loss"]) for epoch in history)


def test_prints_a_line_an_epoch_and_no_bar_without_a_terminal(tmp_path, capsys):
    make_loop(tmp_path, epochs=2, validate=fixed(0.5, 0.25))[0].run()
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("epoch 1/2  loss ")
    assert "validation 50.0/50.0 %" in lines[0]
    assert lines[0].endswith("best")
    assert not lines[1].endswith("best")
    assert "%|" not in captured.err


def test_two_replicas_run_resume_and_save_as_one(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    batches = Batches(tiny_split(40), 16, NoAugment(), replicas=2)
    trained = []
    for name, stop in (("whole", None), ("stopped", 4)):
        with strategy.scope():
            loop, trainer = make_loop(tmp_path / name, tiny_trainer(rate=0.05), batches=batches)
            if stop:
                signal_after(2 * stop, trainer)
                with pytest.raises(Interrupted):
                    loop.run()
                loop, trainer = make_loop(tmp_path / name, tiny_trainer(rate=0.05), batches=batches)
            loop.run()
        trained.append(keras.models.load_model(tmp_path / name / "last.keras"))
    assert_same_weights(*trained)
