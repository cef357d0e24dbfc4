import pytest

from tools.limits import prepare


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_machine_multiplies_and_copies(dtype):
    step, _ = prepare([dtype])
    rates = step()
    assert 1e9 < rates["product"] < 1e16
    assert 1e8 < rates["copy"] < 1e14
