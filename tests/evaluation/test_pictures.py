import matplotlib.figure
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.evaluation import pictures
from awp_tf.evaluation.sanity import AccuracyCurve
from awp_tf.infra.figures import figure_files, literal

DARK = (68, 1, 84)  # the first colour of viridis


def size(png):
    return tf.io.decode_png(png).shape[:2]


def pixels(png):
    return tf.io.decode_png(png, channels=3).numpy().astype(int)


def dark(png, colour=DARK):
    """How many pixels have a colour."""
    return int((np.abs(pixels(png) - colour).max(-1) < 8).sum())


def test_the_curve_is_drawn_where_the_numbers_are():
    falling, flat = (
        AccuracyCurve([0.0, 0.1, 0.2, 1.0], accuracies, 20) for accuracies in ([0.9, 0.5, 0.2, 0.0], [0.9] * 4)
    )
    drawn = [pictures.curve(each, threat="Linf", epsilon=0.1, worst=0.45) for each in (falling, flat)]
    assert size(drawn[0]) == (480, 780)
    heights = []
    for png in drawn:
        rows, columns = np.nonzero(np.abs(pixels(png)[60:] - DARK).max(-1) < 8)  # below legend and title
        heights.append([(rows[part].min(), rows[part].max()) for part in (columns < 200, columns > 600)])
    (left, right), (flat_left, flat_right) = heights
    assert right[1] - left[0] > 150  # falls across the picture
    assert abs(flat_left[0] - flat_right[0]) < 8


@pytest.mark.parametrize("names", [[], ["cat", "dog", "emu"]])
def test_a_class_without_images_has_no_bars(names):
    per_class = {"clean": [1.0, None, 0.5], "robust": [0.5, None, 0.0]}
    drawn = pictures.classes(per_class, names)
    assert size(drawn)[0] == 480
    full = pictures.classes({**per_class, "robust": [0.5, 0.5, 0.0]}, names)
    assert dark(full) > 1.8 * dark(drawn) > 0


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3)])
def test_examples_of_any_number_and_colour(count, channels, rng):
    clean = rng.random((count, 6, 6, channels))
    pictures_of = pictures.examples(clean, np.clip(clean + 0.1, 0, 1), ["a → b"] * count)
    assert size(pictures_of)[0] == 600
    other = pictures.examples(clean, np.clip(clean + 0.1, 0, 1) * 0, ["a → b"] * count)
    assert pictures_of != other


def test_the_same_numbers_give_the_same_bytes():
    per_class = {"clean": [1.0, 0.5], "robust": [0.5, 0.2]}
    assert pictures.classes(per_class, []) == pictures.classes(per_class, [])


@pytest.mark.parametrize("names", [["$$", "$a_{", "^"], ["a$b$c", "\\frac", "$x^"]])
def test_names_are_text_not_formulas(names):
    per_class = {"clean": [1.0, 0.5, 0.2], "robust": [0.5, 0.2, 0.1]}
    assert dark(pictures.classes(per_class, names)) != dark(pictures.classes(per_class, ["", "", ""]))
    pictures.examples(np.zeros((1, 4, 4, 1)), np.ones((1, 4, 4, 1)), [" → ".join(names)])
    pictures_of = figure_files("x", lambda: with_title(literal(names[0])))
    assert size(pictures_of["x.png"])[0] > 0
    assert names[0].replace("&", "&amp;") in pictures_of["x.svg"].decode()


def with_title(text):
    figure = matplotlib.figure.Figure()
    figure.subplots().set_title(text)
    return figure
