"""Board, console, interrupt, checks: small parts whose tests would each be a page of imports."""

import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from awp_tf import checks
from awp_tf.board import Board
from awp_tf.console import Clock, Console, duration, epoch_line, table
from awp_tf.interrupt import Interrupt, Interrupted
from awp_tf.schedules import Warmup

PICTURE = "validation/clean, adversarial, difference"


def test_board_shows_scalars_images_text_and_hparams(tmp_path):
    board = Board(tmp_path)
    board.scalars(3, {"train/loss": 0.5})
    board.text("config", "    EPOCHS = 3")
    board.hparams({"method": "AT()", "epochs": 3})
    board.images(3, tf.zeros([2, 8, 8, 1]) + 0.5, tf.zeros([2, 8, 8, 1]) + 0.6)
    found = EventAccumulator(str(tmp_path)).Reload()
    tags = set(found.Tags()["tensors"])
    assert {"train/loss", "config", PICTURE} <= tags
    assert tf.make_ndarray(found.Tensors("train/loss")[0].tensor_proto) == 0.5
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_the_picture_has_a_row_of_clean_images_of_adversarial_ones_and_of_differences(tmp_path):
    clean = tf.zeros([2, 8, 8, 1]) + 0.5
    adversarial = tf.concat([clean[:1], clean[1:] + 0.1], axis=0)
    Board(tmp_path).images(0, clean, adversarial)
    found = EventAccumulator(str(tmp_path)).Reload()
    png = tf.io.decode_png(tf.make_ndarray(found.Tensors(PICTURE)[0].tensor_proto)[2]).numpy()[..., 0]
    blocks = png.reshape(3, 40, 2, 40).transpose(0, 2, 1, 3)
    inside = blocks[:, :, 4:36, 4:36]
    assert (inside == inside[:, :, :1, :1]).all()
    np.testing.assert_array_equal(inside[:, :, 0, 0], [[127, 127], [127, 153], [127, 255]])
    assert (blocks[:, :, :4] == 255).all()


def test_epoch_line_reads_as_a_sentence():
    values = {f"{part}/{name}": v for part in ("train", "validation") for name, v in (("clean", 0.9), ("robust", 0.5))}
    line = epoch_line(
        3, 30, {**values, "train/loss": 1.25, "speed/images_per_second": 812.4}, remaining=3700, best=True
    )
    expected = "epoch  3/30  loss 1.2500  train 90.0/50.0 %  validation 90.0/50.0 %  812 images/s  1h01m left  best"
    assert line == expected
    assert duration(59.6) == "1m00s"


def test_table_is_aligned_markdown():
    assert table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n| --- | -- |\n| ccc | d  |"


def test_console_is_quiet_without_a_terminal(capfd):
    console = Console("training", 100)
    console.advance(50)
    console.note(loss="1.0")
    console.line("hello")
    console.close()
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert not err.strip()


def test_clock_counts_training_and_not_what_lies_between():
    clock = Clock()
    time.sleep(0.02)
    clock.lap(100)
    clock.pause()
    time.sleep(0.2)
    clock.resume()
    assert clock.training() > 100 / 0.15
    assert clock.remaining(100) > 0.2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_handlers_come_back(signum):
    before = signal.getsignal(signum)
    with Interrupt() as interrupt:
        interrupt.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted, match=signum.name):
            interrupt.check()
        assert signal.getsignal(signum) == before  # so that a second signal has its usual effect
    assert signal.getsignal(signum) == before


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            lambda v: checks.positive("x", v),
            [1, 0.5, Warmup(1, 2), tf.constant(-1)],
            [0, -1, np.nan, None, "1", True],
        ),
        (lambda v: checks.not_negative("x", v), [0, 2.5], [-1e-9]),
        (lambda v: checks.at_least("x", v, 2), [2, np.int64(3)], [1, 2.0, True, None, "3"]),
        (lambda v: checks.fraction("x", v), [0, 0.999], [1, -0.1]),
    ],
)
def test_checks_let_through_what_fits_and_name_what_does_not(check, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(checks.UserError, match=r"^x: expected .*, received"):
            check(value)
