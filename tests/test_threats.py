import numpy as np
import pytest
import tensorflow as tf

from awp_tf.box import clip_delta
from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed
from awp_tf.threats import L2, Linf

THREATS = [Linf(0.1), L2(0.5)]


def size(threat, delta):
    axes = (1, 2, 3)
    return np.abs(delta).max(axes) if isinstance(threat, Linf) else np.sqrt((np.asarray(delta) ** 2).sum(axes))


@pytest.fixture
def delta(rng):
    return tf.constant(rng.normal(0, 1, (6, 4, 4, 3)), tf.float32)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_projection_lands_in_the_ball_and_leaves_inner_points_alone(threat, delta):
    assert (size(threat, threat.project(delta)) <= threat.epsilon * (1 + 1e-6)).all()
    inner = delta * 1e-3
    np.testing.assert_array_equal(threat.project(inner), inner)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_ascent_has_unit_length_and_no_direction_where_the_gradient_is_zero(threat, delta):
    np.testing.assert_allclose(size(threat, threat.ascend(delta)), 1, rtol=1e-5)
    np.testing.assert_array_equal(threat.ascend(tf.zeros_like(delta)), 0)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_samples_fill_the_ball(threat):
    drawn = size(threat, threat.sample(tf.zeros([500, 4, 4, 3]), make_seed(3)))
    assert (drawn <= threat.epsilon).all()
    assert drawn.max() > 0.95 * threat.epsilon


@pytest.mark.parametrize("threat", THREATS, ids=repr)
@pytest.mark.parametrize("draw", ["sample", "edge"])
def test_what_is_drawn_leans_to_no_side(draw, threat):
    drawn = getattr(threat, draw)(tf.zeros([500, 4, 4, 3]), make_seed(3)).numpy()
    largest = np.abs(drawn).max()
    assert abs(drawn.mean()) < 0.05 * largest
    assert min(-drawn.min(), drawn.max()) > 0.5 * largest


def test_l2_samples_have_uniform_length_as_the_reference():
    drawn = size(L2(0.5), L2(0.5).sample(tf.zeros([4000, 4, 4, 3]), make_seed(3))) / 0.5
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_box_keeps_pixels_in_range_and_never_lengthens(delta, rng):
    x = tf.constant(rng.uniform(0, 1, delta.shape), tf.float32)
    cut = clip_delta(delta, x)
    assert ((x + cut).numpy() >= -1e-7).all()
    assert ((x + cut).numpy() <= 1 + 1e-7).all()
    assert (np.abs(cut) <= np.abs(delta)).all()


def test_fractions_are_read():
    assert Linf("8/255").epsilon == 8 / 255


@pytest.mark.parametrize("threat", [Linf, L2])
@pytest.mark.parametrize("epsilon", [-0.1, 0, "eight", "8/0", float("nan")])
def test_what_is_no_radius_is_refused(threat, epsilon):
    with pytest.raises(UserError, match=rf"{threat.__name__}.epsilon: expected"):
        threat(epsilon)


@pytest.mark.parametrize(("threat", "epsilon"), [(Linf, 8), (L2, 128)])
def test_grey_levels_are_refused_with_the_right_spelling(threat, epsilon):
    with pytest.raises(UserError, match=rf'write "{epsilon}/255"'):
        threat(epsilon)
