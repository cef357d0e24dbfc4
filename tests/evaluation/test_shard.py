import numpy as np
import pytest
from helpers import tiny_split

from awp_tf.evaluation.shard import Shard
from awp_tf.infra.errors import UserError


@pytest.mark.parametrize("total", [3, 7, 24])
def test_shards_take_every_image_once(total):
    places = [Shard(number, 3).places(total) for number in (1, 2, 3)]
    assert sorted(np.concatenate(places)) == list(range(total))
    assert max(map(len, places)) - min(map(len, places)) <= 1
    np.testing.assert_array_equal(Shard().places(total), np.arange(total))


def test_it_is_read_as_it_is_written():
    assert Shard.parse(" 3/8 ") == Shard(3, 8)
    assert Shard.parse(str(Shard(2, 5))) == Shard(2, 5)
    assert Shard.parse("1/1") == Shard()


@pytest.mark.parametrize("text", ["0/8", "9/8", "x", "3", "3/0", "-1/8", "1/8/2", "1.5/8", ""])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="shard: expected one of how many"):
        Shard.parse(text)


def test_more_shards_than_images_are_refused():
    splits = {"test": tiny_split(9), "train": tiny_split(4)}
    Shard(4, 4).require_fit(splits)
    with pytest.raises(UserError, match="at most 4 shards, one image each, received 2/5"):
        Shard(2, 5).require_fit(splits)
