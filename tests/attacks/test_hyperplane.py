import numpy as np
import pytest
import tensorflow as tf
from golden import MISC, THREATS

from awp_tf.attacks.fab import onto_hyperplane

NORMS = ["Linf", "L2"]


def move(norm, t, w, b, dtype="float64"):
    """Rows [n, D] in place of images."""
    t, w = np.asarray(t), np.asarray(w)
    images = [tf.constant(a[:, None, None, :], dtype) for a in (t, w)]
    distance = tf.constant((w * t).sum(1) - np.asarray(b), dtype)
    return tf.function(onto_hyperplane)(THREATS[norm](0.1), *images, distance).numpy()[:, 0, 0]


def random_problems():
    r = np.random.default_rng(5)
    t, w = r.random((6, 192)), r.standard_normal((6, 192))
    down, up = np.where(w > 0, t, 1 - t), np.where(w > 0, 1 - t, t)
    reach = [-f * (abs(w) * down).sum(1) for f in (0.01, 0.2, 0.6, 0.95, 1.2)] + [0.3 * (abs(w) * up).sum(1)]
    return t, w, (t * w).sum(1) + np.array([row[i] for i, row in enumerate(reach)])


@pytest.mark.parametrize("norm", NORMS)
def test_small_problems_have_the_official_solution(norm):
    golden = MISC[f"proj/{norm.lower()}"]
    np.testing.assert_allclose(move(norm, golden["t"], golden["w"], golden["b"]), golden["d"], atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_random_problems_have_the_official_solution(norm):
    golden, (t, w, b) = MISC[f"projrand/{norm.lower()}"], random_problems()
    delta = move(norm, t, w, b)
    size = np.abs(delta).max(1) if norm == "Linf" else np.sqrt((delta**2).sum(1))
    np.testing.assert_allclose(size, golden["norm"], rtol=1e-10)
    np.testing.assert_allclose(delta @ np.cos(np.arange(192)), golden["chk"], rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_the_hyperplane_is_met_inside_the_box_or_the_corner_is_taken(norm):
    t, w, b = random_problems()
    delta = move(norm, t, w, b)
    assert -1e-15 < (t + delta).min() <= (t + delta).max() < 1 + 1e-15
    left = (w * (t + delta)).sum(1) - b
    np.testing.assert_allclose(np.delete(left, 4), 0, atol=1e-11)
    corner = np.where(w[4] > 0, 0.0, 1.0)
    np.testing.assert_allclose(t[4] + delta[4], corner, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_hyperplane_does_not_matter(norm):
    t, w, b = random_problems()
    np.testing.assert_allclose(move(norm, t, 1e3 * w, 1e3 * b), move(norm, t, w, b), atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_no_normal_or_no_distance_is_no_move(norm):
    t, w, _ = random_problems()
    np.testing.assert_array_equal(move(norm, t, 0 * w, np.zeros(6)), 0)
    np.testing.assert_array_equal(move(norm, t, w, (t * w).sum(1)), 0)


@pytest.mark.parametrize("norm", NORMS)
def test_single_precision_is_close(norm):
    t, w, b = random_problems()
    np.testing.assert_allclose(move(norm, t, w, b, "float32"), move(norm, t, w, b), atol=3e-5)
