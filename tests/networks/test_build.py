import functools

import keras
import pytest

from awp_tf.functional import require_network
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from awp_tf.networks.build import build

SHAPE, CLASSES = (8, 8, 1), 3


def flat(shape, classes):
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)])


def of_any_sizes(**sizes):
    return flat(**sizes)


@pytest.mark.parametrize("make", [flat, functools.partial(small_cnn, width=2), of_any_sizes])
def test_what_a_function_makes_is_a_network_for_these_images(make):
    network = build(make, SHAPE, CLASSES)
    assert (network.input_shape, network.output_shape) == ((None, *SHAPE), (None, CLASSES))


def test_functions_that_make_no_network_are_one_line():
    def none():
        return flat(SHAPE, CLASSES)

    def others(input_shape, num_classes):
        return flat(input_shape, num_classes)

    def nothing(shape, classes):
        flat(shape, classes)

    for make, message in (
        (none, r"none: expected a function of shape and classes .*; got an unexpected keyword argument 'shape'"),
        (others, "others: expected a function of shape and classes that makes a network, as small_cnn is"),
        (nothing, r"nothing: expected a function that returns a keras\.Model, received None"),
    ):
        with pytest.raises(UserError, match=message) as error:
            build(make, SHAPE, CLASSES)
        assert "\n" not in str(error.value)


class Subclass(keras.Model):
    def __init__(self, shape, classes):
        super().__init__()
        self.flat = flat(shape, classes)

    def call(self, x):
        return self.flat(x)


@pytest.mark.parametrize(
    "make", [Subclass, lambda shape, classes: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(classes)])]
)
def test_a_network_whose_input_is_not_known_is_told_how_to_make_it_known(make):
    with pytest.raises(UserError, match=r"expected a network whose input is known; begin it with keras\.Input"):
        require_network(build(make, SHAPE, CLASSES))
