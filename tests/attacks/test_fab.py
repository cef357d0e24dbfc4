import numpy as np
import pytest
import tensorflow as tf
from golden import FAB as GOLDEN
from golden import LINEAR, THREATS, checksum, examples_of, mlp, seeds_of

from awp_tf.attacks import FAB, Examples
from awp_tf.attacks.search import run

CASES = [key.split("/")[1:] for key in GOLDEN]


@pytest.fixture(scope="module")
def network():
    return mlp(8, 8, 16, 10, 0)


def found(network, norm, targets, iterations, epsilon=0.1, examples=None):
    attack = FAB(THREATS[norm](epsilon), iterations, targets=targets)
    examples = examples_of(network) if examples is None else examples
    return tf.function(lambda: run(attack, network, examples, seeds_of(examples)), autograph=False)()


@pytest.mark.parametrize(("norm", "kind", "iterations"), CASES, ids="/".join)
def test_distances_are_the_official_ones(network, norm, kind, iterations):
    golden = GOLDEN[f"fab/{norm}/{kind}/{iterations}"]
    state = found(network, norm, int(kind == "t2"), int(iterations))
    distance = np.where(state.distance < 1e9, state.distance, 0)
    np.testing.assert_allclose(distance, golden["dist"], rtol=1e-6, atol=1e-12)
    if golden["sens"] < 1e-9:
        np.testing.assert_allclose(checksum(state.adversarial, network.x), golden["chk"], rtol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_network_is_solved_up_to_the_overshoot(norm):
    r = np.random.default_rng(3)
    a, c, x = r.standard_normal((108, 4)) * 0.2, r.standard_normal(4) * 0.1, r.uniform(0.3, 0.7, (5, 6, 6, 3))
    predict = lambda z: (tf.reshape(z, [-1, 108]) - 0.5) @ a + c  # noqa: E731
    y = tf.argmax(predict(x), 1, output_type=tf.int32)
    examples = Examples(tf.constant(x), y, y, tf.range(5, dtype=tf.int64))
    golden = LINEAR[norm]
    state = found(predict, norm, 0, 20, examples=examples)
    np.testing.assert_allclose(state.distance, golden["fab"], rtol=1e-9)
    np.testing.assert_allclose(state.distance / golden["exact"], 1.0052132701421, rtol=1e-6)


def test_only_what_is_nearer_than_epsilon_counts(network):
    state = found(network, "Linf", 0, 5, epsilon=0.004)
    np.testing.assert_array_equal(state.fooled, state.distance.numpy() <= 0.004)
    assert 0 < state.fooled.numpy().sum() < 8
    wrong = np.argmax(network(state.adversarial), 1) != network.y
    np.testing.assert_array_equal(wrong, state.distance < 1e9)


def test_the_first_run_is_at_the_image_and_later_ones_are_elsewhere(network):
    attack, examples = FAB(THREATS["Linf"](0.02)), examples_of(network)
    first, second = (attack.begin(examples, seeds_of(examples), tf.constant(restart)).x for restart in (0, 1))
    np.testing.assert_array_equal(first, examples.x)
    away = THREATS["Linf"](0.02).norm(second - examples.x).numpy()
    assert (away <= 0.01 + 1e-12).all()
    assert away.max() == pytest.approx(0.01, rel=1e-6)


def test_a_constant_network_gives_no_nan(network):
    examples = examples_of(network)
    state = found(lambda x: 0 * network(x), "L2", 1, 3, examples=examples)
    assert np.isfinite(state.x).all()
