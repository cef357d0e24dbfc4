import importlib.util
import os
import sys

import numpy as np
import pytest

from awp_tf.infra.apart import Apart
from awp_tf.infra.errors import UserError
from tools.reference_step import prepare
from tools.step_speed import _REFERENCE

METHODS = ("at_awp", "trades_awp")


@pytest.fixture
def batch(tmp_path):
    np.savez(tmp_path / "batch.npz", x=np.full((2, 32, 32, 3), 0.5, np.float32), y=np.zeros(2, np.int32))
    return str(tmp_path / "batch.npz")


def test_another_folder_is_refused(tmp_path, batch):
    with pytest.raises(UserError, match="expected a checkout of csdongxian/AWP"):
        prepare([str(tmp_path), batch, "at_awp", "float32"])


def test_another_folder_is_refused_through_its_process_too(tmp_path, batch):
    with pytest.raises(UserError, match="expected a checkout of csdongxian/AWP"):
        Apart(_REFERENCE, str(tmp_path), batch, "at_awp", "float32")


@pytest.mark.parametrize(("method", "precision"), [("mart_awp", "float32"), ("at_awp", "float64")])
def test_a_step_that_the_reference_does_not_have_is_refused(tmp_path, batch, method, precision):
    with pytest.raises(UserError, match="--reference"):
        prepare([str(tmp_path), batch, method, precision])


@pytest.mark.slow
@pytest.mark.skipif("AWP_REFERENCE" not in os.environ, reason="AWP_REFERENCE names no checkout of csdongxian/AWP")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_the_reference_takes_steps(batch, method, precision):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("extra 'torch' is not installed")
    with Apart("tools.reference_step", os.environ["AWP_REFERENCE"], batch, method, precision) as step:
        assert np.isfinite([step()["loss"], step()["loss"]]).all()
    assert "torch" not in sys.modules
