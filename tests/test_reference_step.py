import os

import numpy as np
import pytest

from awp_tf.checks import UserError
from tools.reference_step import at_awp

X, Y = np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, np.int32)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a checkout of csdongxian/AWP"):
        at_awp(str(tmp_path), X, Y)


@pytest.mark.slow
@pytest.mark.skipif("AWP_REFERENCE" not in os.environ, reason="AWP_REFERENCE names no checkout of csdongxian/AWP")
def test_the_reference_takes_steps():
    pytest.importorskip("torch")
    step = at_awp(os.environ["AWP_REFERENCE"], X, Y)
    assert np.isfinite([step(), step()]).all()
