import numpy as np
import pytest
import tensorflow as tf

from awp_tf.robustness import pictures
from awp_tf.robustness.sanity import Curve


def size(png):
    return tf.io.decode_png(png).shape[:2]


def test_the_curve_is_drawn():
    found = Curve([0.0, 0.1, 0.2, 1.0], [0.9, 0.5, 0.2, 0.0], 20)
    assert size(pictures.curve(found, threat="Linf", epsilon=0.1, worst=0.45)) == (480, 720)


@pytest.mark.parametrize("names", [[], ["cat", "dog", "emu"]])
def test_a_class_without_images_has_no_bars(names):
    per_class = {"clean": [1.0, None, 0.5], "robust": [0.5, None, 0.0]}
    assert size(pictures.classes(per_class, names))[0] == 480


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3)])
def test_examples_of_any_number_and_colour(count, channels, rng):
    clean = rng.random((count, 6, 6, channels))
    pictures_of = pictures.examples(clean, np.clip(clean + 0.1, 0, 1), ["a → b"] * count)
    assert size(pictures_of)[0] == 600


def test_the_same_numbers_give_the_same_bytes():
    per_class = {"clean": [1.0, 0.5], "robust": [0.5, 0.2]}
    assert pictures.classes(per_class, []) == pictures.classes(per_class, [])
