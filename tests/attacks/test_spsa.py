import numpy as np
import pytest
import tensorflow as tf
from golden import examples_of, mlp, seeds_of

from awp_tf.attacks import SPSA
from awp_tf.attacks.search import LOSSES, climb, run
from awp_tf.infra.errors import UserError
from awp_tf.threats import L2, Linf


@pytest.fixture(scope="module")
def network():
    return mlp(6, 8, 16, 10, 0)


def test_the_estimate_points_along_the_gradient(network):
    examples = examples_of(network)
    estimate = SPSA(Linf(0.01), samples=1024)._estimate(network, examples, examples.x, seeds_of(examples))
    gradient = climb(lambda x: (LOSSES["margin"](network(x), examples), None), examples.x)[2]
    for one, other in zip(np.reshape(estimate, (6, -1)), np.reshape(gradient, (6, -1)), strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine > 0.78  # sqrt(512 / (512 + 192)) = 0.85 expected
        assert np.linalg.norm(one) * cosine / np.linalg.norm(other) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("threat", [Linf(0.01), L2(0.05)], ids=repr)
def test_fools_images_inside_ball_and_box_without_a_gradient(network, threat):
    examples = examples_of(network)
    blind = lambda x: tf.stop_gradient(network(x))  # noqa: E731
    state = run(SPSA(threat, iterations=20, samples=64), blind, examples, seeds_of(examples))
    assert (threat.norm(state.adversarial - examples.x).numpy() <= threat.epsilon * (1 + 1e-6)).all()
    assert 0 <= state.adversarial.numpy().min() <= state.adversarial.numpy().max() <= 1
    np.testing.assert_array_equal(state.fooled, np.argmax(network(state.adversarial), 1) != network.y)
    assert state.fooled.numpy().sum() >= 2


def test_defaults_are_those_of_the_papers_table():
    attack = SPSA(Linf(8 / 255))
    assert (attack.iterations, attack.samples, attack.learning_rate, attack.reach) == (100, 256, 0.01, 0.001)


@pytest.mark.parametrize("settings", [{"samples": 20}, {"samples": 0}, {"reach": 0}, {"iterations": 0}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(UserError, match=rf"SPSA\.{next(iter(settings))}: expected"):
        SPSA(Linf(8 / 255), **settings)
