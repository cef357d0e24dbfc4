import importlib.util
import os
import sys

import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from tools.reference_step import apart, at_awp

X, Y = np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, np.int32)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a checkout of csdongxian/AWP"):
        at_awp(str(tmp_path), X, Y)


@pytest.mark.slow
@pytest.mark.skipif("AWP_REFERENCE" not in os.environ, reason="AWP_REFERENCE names no checkout of csdongxian/AWP")
def test_the_reference_takes_steps():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("extra 'torch' is not installed")
    with apart(os.environ["AWP_REFERENCE"], X, Y) as step:
        assert np.isfinite([step(), step()]).all()
    assert "torch" not in sys.modules


def test_another_folder_is_refused_through_its_process_too(tmp_path):
    with pytest.raises(UserError, match="expected a checkout of csdongxian/AWP"), apart(str(tmp_path), X, Y):
        pass


def test_a_process_that_ends_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"ended without an answer \(exit code 1\)"), apart(str(tmp_path), X, Y):
        pass
