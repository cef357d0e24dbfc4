import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import NFGSM, GaussianStart, UniformStart, ZeroStart
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


@pytest.mark.parametrize("relative_noise", [2.0, 0.5])
def test_nfgsm_steps_from_a_noisy_image_and_is_not_pulled_back_into_the_ball(relative_noise):
    """De Jorge et al., NeurIPS 2022, Algorithm 1: k = 2 and a step of epsilon in the paper and by default."""
    x, threat, seed = tf.fill([50, 4, 4, 1], tf.constant(0.5, tf.float64)), Linf(0.1), make_seed(0)
    slope = lambda z: tf.where(z > 0.55, -2.0 * (z - 0.55), 1.0)  # noqa: E731
    objective = lambda z: tf.reduce_sum(tf.where(z > 0.55, -tf.square(z - 0.55), z), axis=[1, 2, 3])  # noqa: E731
    noisy = x + relative_noise * threat.sample(x, seed)
    expected = noisy + 0.1 * tf.sign(tf.cast(slope(noisy), tf.float64))
    found = NFGSM(threat, relative_noise=relative_noise)(objective, x, seed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert NFGSM(threat) == NFGSM(threat, relative_noise=2.0, relative_step_size=1.0)
    assert np.abs(found - x).max() > 0.12
