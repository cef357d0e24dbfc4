import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from awp_tf.infra.tensorboard import Board, not_fatal

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


def curve(folder):
    found = EventAccumulator(str(folder)).Reload()
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in found.Tensors("loss")]


@pytest.mark.parametrize("torn", [False, True])
def test_a_curve_does_not_run_back_where_a_run_goes_on_from_an_earlier_step(torn, tmp_path):
    for step in range(1, 6):
        Board(tmp_path, steps=step - 1).scalars(step, {"loss": float(step)})
    if torn:  # a record was half-written as the process was killed
        newest = max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:-3])
    for step in (4, 5, 6):
        Board(tmp_path, steps=step - 1).scalars(step, {"loss": 10.0 * step})
    assert sorted(curve(tmp_path)) == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60)]


def test_a_picture_that_fails_costs_nothing_and_is_said(capsys):
    with not_fatal("a picture"):
        raise ValueError("Expected end of text\nand more")
    assert capsys.readouterr().err.startswith("warning: a picture could not be drawn (Expected end of text)")
