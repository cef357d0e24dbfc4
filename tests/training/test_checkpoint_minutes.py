"""An epoch can be hours: the state is saved in the middle of it, too, and a killed run loses minutes."""

import itertools
import time

import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_trainer
from training.test_loop import make_loop

from awp_tf.infra.errors import UserError
from awp_tf.training.train import train


class KilledError(Exception):
    """Stands for a kill: nothing is saved on the way out."""


def die_after(steps, trainer):
    original, counter = trainer.averaged.update, itertools.count(1)

    def update(step, epoch):
        original(step, epoch)
        tf.py_function(lambda: die() if next(counter) == steps else None, [], [])

    def die():
        raise KilledError

    trainer.averaged.update = update


def steps_saved(folder):
    return sorted(int(file.stem.split("-")[1]) for file in (folder / "checkpoints").glob("step-*.index"))


def test_a_killed_run_goes_on_from_the_middle_of_an_epoch_bit_for_bit(tmp_path):
    loop, whole = make_loop(tmp_path / "whole", tiny_trainer(rate=0.05))
    loop.run()
    trainer = tiny_trainer(rate=0.05)
    die_after(6, trainer)  # of 3 steps an epoch
    loop, _ = make_loop(tmp_path / "killed", trainer, checkpoint_minutes=1e-9)
    with pytest.raises(Exception, match="KilledError"):
        loop.run()
    assert steps_saved(tmp_path / "killed") == [4, 5]
    loop, resumed = make_loop(tmp_path / "killed", tiny_trainer(rate=0.05), checkpoint_minutes=60)
    loop.run()
    assert_same_weights(whole.network, resumed.network, rtol=0, atol=0)
    assert loop.progress.step == 9
    # Its epochs were measured as if nothing had happened.
    names = ("history.json",)
    assert [(tmp_path / "killed" / n).read_text() for n in names] == [
        (tmp_path / "whole" / n).read_text() for n in names
    ]


def test_time_is_counted_from_the_last_save_by_a_clock_that_never_goes_back(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -now[0])
    checkpoints = make_loop(tmp_path, checkpoint_minutes=2)[0]._records
    now[0] = 119.0
    assert not checkpoints.due
    now[0] = 120.0
    assert checkpoints.due
    checkpoints.save()
    assert not checkpoints.due
    assert not make_loop(tmp_path)[0]._records.due


@pytest.mark.parametrize("wrong", [0, -1.0, "5"])
def test_minutes_are_a_number_above_zero(wrong):
    settings = dict.fromkeys(("recipe", "data", "validation", "test"))
    with pytest.raises(UserError, match="checkpoint_minutes: expected a number > 0"):
        train(**settings, epochs=1, seed=0, workdir="x", config="", checkpoint_minutes=wrong)
