import pytest
import tensorflow as tf

from tools.limits import prepare, repeated


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_machine_multiplies_and_copies(dtype):
    step, _ = prepare([dtype])
    rates = step()
    assert 1e9 < rates["product"] < 1e16
    assert 1e8 < rates["copy"] < 1e14


def test_what_takes_no_time_is_done_again_and_again():
    assert repeated(3, lambda x: x * 2.0, tf.constant(1.0)) == 8
