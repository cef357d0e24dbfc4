import pytest

from awp_tf.infra import memory
from awp_tf.infra.errors import UserError


def test_room_follows_the_machine():
    assert memory.room("it", None) == memory.machine() // 4 == memory.default_room()
    assert memory.room("it", 2) == 2**31
    assert 2**28 < memory.machine() < 2**50


def test_room_is_a_number_above_zero():
    with pytest.raises(UserError, match=r"^it: expected a number > 0, received -1"):
        memory.room("it", -1)
