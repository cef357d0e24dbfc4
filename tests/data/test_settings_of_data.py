"""What a run trains on and chooses its best network on."""

import dataclasses

import numpy as np
from helpers import tiny_split

from awp_tf.data import Data
from awp_tf.data.sources import source_of

SOURCE = source_of("tiny", tiny_split(60), tiny_split(20, seed=7), list("abcd"), tiny_split(30, seed=8))


def test_validation_images_that_come_with_the_data_are_taken_and_all_others_trained_on():
    source, train, validation = Data(lambda: SOURCE).load()
    assert (len(train), validation) == (60, source.validation)
    assert len(Data(lambda: SOURCE, limit=10).load()[1]) == 10


def test_a_number_holds_out_training_images_as_where_there_are_none(capsys):
    _, train, validation = Data(lambda: SOURCE, validation=12).load()
    assert "tiny: its 30 validation images are left out, since Data.validation is 12" in capsys.readouterr().out
    without = dataclasses.replace(SOURCE, validation=None)
    for mine, other in zip((train, validation), Data(lambda: without, validation=12).load()[1:], strict=True):
        np.testing.assert_array_equal(mine.images, other.images)
    assert not capsys.readouterr().out
    assert len(Data(lambda: without).load()[2]) == 6
