import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import GaussianStart, UniformStart, ZeroStart
from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed
from awp_tf.threats import L2, Linf


def test_starts_lie_where_they_say():
    x = tf.fill([50, 4, 4, 1], 0.5)
    assert not ZeroStart()(Linf(0.1), x, make_seed(0)).numpy().any()
    assert 0.05 < np.abs(UniformStart()(Linf(0.1), x, make_seed(0))).max() <= 0.1
    assert np.std(GaussianStart(0.01)(Linf(0.1), x, make_seed(0))) == pytest.approx(0.01, rel=0.1)


def test_a_gaussian_start_stays_in_the_ball():
    delta = GaussianStart(1.0)(L2(0.5), tf.zeros([50, 4, 4, 1]), make_seed(0))
    assert np.sqrt((delta.numpy() ** 2).sum((1, 2, 3))).max() <= 0.5 + 1e-6


def test_a_negative_deviation_is_refused():
    with pytest.raises(UserError, match=r"GaussianStart\.std"):
        GaussianStart(-1.0)
