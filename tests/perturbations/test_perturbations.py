import numpy as np
import pytest
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.noise import make_seed
from awp_tf.perturbations import ASAM, AWP, SAM, Identity, RandomPerturbation, relative_norm

SEED = make_seed(0)


@pytest.fixture
def weights(rng):
    shapes = [(3, 3, 2, 4), (4,), (8, 5), (5,)]
    return [tf.constant(rng.normal(0, 1, shape), tf.float64) for shape in shapes]


def gradient(weights):
    return [tf.sin(w) + 0.1 for w in weights]


def shifts(weights, points):
    (nearby,) = points
    return [(n - w).numpy() for w, n in zip(weights, nearby, strict=True)]


@pytest.mark.parametrize("perturbation", [AWP(0.01), AWP(0.01, steps=4), RandomPerturbation(0.01)], ids=repr)
def test_moves_kernels_within_the_radius_and_nothing_else(perturbation, weights):
    for weight, shift in zip(weights, shifts(weights, perturbation(weights, gradient, SEED)), strict=True):
        radius = 0.01 * np.linalg.norm(weight) if weight.ndim > 1 else 0
        assert np.linalg.norm(shift) <= radius * (1 + 1e-12)
        assert (np.linalg.norm(shift) > 0.9 * radius) or weight.ndim == 1


@pytest.mark.parametrize("perturbation", [AWP(0.01), RandomPerturbation(0.01)], ids=repr)
def test_one_step_has_exactly_the_length_gamma(perturbation, weights):
    for weight, shift in zip(weights, shifts(weights, perturbation(weights, gradient, SEED)), strict=True):
        if weight.ndim > 1:
            np.testing.assert_allclose(np.linalg.norm(shift), 0.01 * np.linalg.norm(weight), rtol=1e-12)


def test_one_step_goes_along_the_gradient(weights):
    moved = shifts(weights, AWP(0.02)(weights, gradient, SEED))
    for weight, g, shift in zip(weights, gradient(weights), moved, strict=True):
        if weight.ndim > 1:
            np.testing.assert_allclose(shift, 0.02 * np.linalg.norm(weight) * g / np.linalg.norm(g), rtol=1e-10)


def test_several_steps_follow_the_algorithm_of_the_paper(weights):
    gamma, steps = 0.1, 3
    v = [np.zeros(w.shape) for w in weights]
    for _ in range(steps):
        g = gradient([w + d for w, d in zip(weights, v, strict=True)])
        for i, w in enumerate(np.asarray(w) for w in weights):
            if w.ndim > 1:
                v[i] = v[i] + gamma / steps * np.linalg.norm(w) * g[i] / np.linalg.norm(g[i])
                v[i] = v[i] * min(1, gamma * np.linalg.norm(w) / np.linalg.norm(v[i]))
    for expected, got in zip(v, shifts(weights, AWP(gamma, steps)(weights, gradient, SEED)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-13)


def test_going_on_from_nearby_weights_stays_in_the_ball_around_the_centre(weights):
    awp = AWP(0.01)
    start = awp(weights, gradient, SEED)
    turned = lambda ws: [-tf.cos(w) for w in ws]  # noqa: E731
    for weight, shift in zip(weights, shifts(weights, awp(weights, turned, SEED, start)), strict=True):
        assert np.linalg.norm(shift) <= 0.01 * np.linalg.norm(weight) * (1 + 1e-9)
    assert relative_norm(start[0], awp(weights, turned, SEED, start)[0]) > 1e-3


@pytest.mark.parametrize("perturbation", [AWP(0.0), RandomPerturbation(0.0), Identity()], ids=repr)
def test_no_radius_is_no_change_bit_for_bit(perturbation, weights):
    for weight, other in zip(weights, perturbation(weights, gradient, SEED)[0], strict=True):
        np.testing.assert_array_equal(weight, other)


def test_no_gradient_is_no_change(weights):
    flat = lambda ws: [tf.zeros_like(w) for w in ws]  # noqa: E731
    for weight, other in zip(weights, AWP(0.01)(weights, flat, SEED)[0], strict=True):
        np.testing.assert_array_equal(weight, other)


def test_identity_asks_for_no_gradient(weights):
    def never(_):
        raise AssertionError

    assert Identity()(weights, never, SEED) == [weights]


def test_random_perturbation_is_fresh_for_every_seed_and_layer(weights):
    one, other = (RandomPerturbation(0.01)(weights, gradient, make_seed(s))[0] for s in (0, 1))
    assert (one[0].numpy() != other[0].numpy()).all()
    first, second = shifts([weights[0]] * 2, RandomPerturbation(0.01)([weights[0]] * 2, gradient, SEED))
    assert (first != second).all()


def test_relative_norm_takes_the_group_together(weights):
    np.testing.assert_allclose(relative_norm(weights, [1.1 * w for w in weights]), 0.1, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AWP(-0.1), r"AWP\.gamma: expected a number >= 0, received -0\.1"),
        (lambda: RandomPerturbation(-1), r"RandomPerturbation\.gamma: expected a number >= 0, received -1"),
        (lambda: AWP(0.1, steps=0), r"AWP\.steps: expected a whole number >= 1, received 0"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def lengths(weights, points):
    return np.concatenate([shift.ravel() for shift in shifts(weights, points)])


def test_sam_has_the_length_rho_over_all_parameters_along_the_gradient(weights):
    moved = lengths(weights, SAM(0.3)(weights, gradient, SEED))
    along = np.concatenate([g.numpy().ravel() for g in gradient(weights)])
    np.testing.assert_allclose(np.linalg.norm(moved), 0.3, rtol=1e-10)
    np.testing.assert_allclose(moved, 0.3 * along / np.linalg.norm(along), rtol=1e-9)


def test_asam_is_the_steepest_step_in_the_ball_of_rescaled_weights(weights):
    eta = 0.1
    moved = lengths(weights, ASAM(0.3, eta=eta)(weights, gradient, SEED))
    t = np.concatenate([np.abs(w.numpy()).ravel() + eta for w in weights])
    g = np.concatenate([g.numpy().ravel() for g in gradient(weights)])
    np.testing.assert_allclose(np.linalg.norm(moved / t), 0.3, rtol=1e-9)
    np.testing.assert_allclose(moved, 0.3 * t**2 * g / np.linalg.norm(t * g), rtol=1e-9)


def loss_at_worst(perturbation, first, second):
    """A two-layer network's loss where the perturbation leads, and how far the loss rises."""
    x = tf.constant(np.random.default_rng(1).normal(0, 1, (16, 5)))
    loss = lambda ws: tf.reduce_mean((tf.nn.relu(x @ ws[0]) @ ws[1] - x[:, :3]) ** 2)  # noqa: E731

    def gradient(weights):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = loss(weights)
        return tape.gradient(value, weights)

    return float(loss(perturbation([first, second], gradient, SEED)[0]) - loss([first, second]))


def test_asam_does_not_see_the_scale_of_a_layer_that_its_successor_undoes(rng):
    first, second = tf.constant(rng.normal(0, 1, (5, 8))), tf.constant(rng.normal(0, 1, (8, 3)))
    as_they_are, rescaled = (loss_at_worst(ASAM(0.1), scale * first, second / scale) for scale in (1.0, 7.0))
    assert as_they_are == pytest.approx(rescaled, rel=1e-9)
    assert as_they_are > 1e-3
    of_sam = [loss_at_worst(SAM(0.1), scale * first, second / scale) for scale in (1.0, 7.0)]
    assert of_sam[1] > 2 * of_sam[0]  # SAM sees it


@pytest.mark.parametrize("kind", [SAM, ASAM])
def test_sam_refuses_what_makes_no_sense(kind):
    with pytest.raises(UserError, match=rf"{kind.__name__}.rho: expected a number >= 0, received -1"):
        kind(rho=-1)
    with pytest.raises(UserError, match=rf"{kind.__name__}.bn_update: expected .*clean.*, received 'mean'"):
        kind(bn_update="mean")


def test_sam_looks_where_it_was_led_and_stays_around_the_weights(weights):
    asked, start = [], [[w + 1.0 for w in weights]]

    def watched(at):
        asked.append(at)
        return gradient(at)

    found = shifts(weights, SAM(0.3)(weights, watched, SEED, start))
    assert asked == start
    slopes = [g.numpy() for g in gradient(start[0])]
    length = np.sqrt(sum((g**2).sum() for g in slopes))
    for shift, slope in zip(found, slopes, strict=True):
        np.testing.assert_allclose(shift, 0.3 * slope / length, rtol=1e-9, atol=1e-12)
