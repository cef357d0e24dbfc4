import numpy as np
import pytest
import tensorflow as tf
from golden import APGD as GOLDEN
from golden import MISC, THREATS, checksum, examples_of, mlp, seeds_of

from awp_tf.attacks import APGD
from awp_tf.attacks.apgd import _windows
from awp_tf.attacks.search import advance, run
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.threats import L2, Linf

LOSSES = {"ce": "ce", "dlr": "dlr", "dlr-targeted": "targeted-dlr"}
CASES = [(norm, loss) for norm in ("Linf", "L2") for loss in LOSSES]


@pytest.fixture(scope="module")
def network():
    return mlp(8, 8, 16, 10, 0)


def start_of(network, norm, epsilon):
    t = np.random.default_rng(1).uniform(-1, 1, network.x.shape)
    size = np.abs(t).max((1, 2, 3)) if norm == "Linf" else np.sqrt((t**2).sum((1, 2, 3)))
    return tf.constant(np.clip(network.x + epsilon * t / size[:, None, None, None], 0, 1))


def trace(network, norm, loss, iterations=100, **settings):
    """States of a run from the golden start, one after each step."""
    epsilon = GOLDEN[f"apgd/{norm}/ce"]["eps"]
    attack = APGD(THREATS[norm](epsilon), LOSSES[loss], iterations, targets=int("targeted" in loss), **settings)
    examples = examples_of(network)
    state = attack.begin_at(start_of(network, norm, epsilon))
    step = tf.function(lambda s, i: attack.step(network, examples, s, i, seeds_of(examples)), autograph=False)
    states = []
    for i in range(attack.steps):
        state = step(state, tf.constant(i))
        states.append(state)
    return states


def test_the_network_is_the_one_the_golden_values_are_of(network):
    assert list(network.y) == GOLDEN["mlp"]["y"]
    assert float(tf.reduce_sum(network.x)) == pytest.approx(GOLDEN["mlp"]["sum_x"], rel=1e-13)
    assert list(examples_of(network).targets.numpy()) == GOLDEN["mlp"]["target_rank2"]


@pytest.mark.parametrize(("norm", "loss"), CASES, ids="/".join)
def test_follows_the_official_trace(network, norm, loss):
    golden = GOLDEN[f"apgd/{norm}/{loss}"]
    states = trace(network, norm, loss)
    last, known = states[-1], slice(None)
    if (norm, loss) == ("L2", "dlr"):
        known = slice(7)  # the eighth image is on the plateau of the loss, where the last bit decides
    np.testing.assert_allclose(last.best_loss.numpy()[known], golden["loss_best"][known], rtol=1e-6)
    np.testing.assert_allclose(checksum(last.best, network.x)[known], golden["chk_best"][known], rtol=1e-6)
    np.testing.assert_array_equal(last.fooled.numpy(), np.array(golden["acc"]) == 0)
    np.testing.assert_allclose(checksum(last.adversarial, network.x)[known], golden["chk_adv"][known], rtol=1e-6)
    for check in golden["checks"]:
        halved = [a == "1" or b == "1" for a, b in zip(check["osc"], check["noimp"], strict=True)]
        np.testing.assert_array_equal(states[check["step"]].halved.numpy()[known], halved[known])


@pytest.mark.parametrize("iterations", [100, 50, 40, 20, 10, 5, 1])
def test_windows_end_where_the_official_ones_do(iterations):
    assert list(np.flatnonzero(_windows(iterations))) == MISC[f"checkpoints/{iterations}"]


@pytest.mark.parametrize("threat", [Linf(0.006), L2(0.05)], ids=repr)
def test_every_point_is_in_ball_and_box_and_the_best_loss_only_rises(network, threat):
    attack, examples = APGD(threat, iterations=30), examples_of(network)
    state, best = attack.begin(examples, seeds_of(examples), 0), -np.inf
    edge = threat.norm(state.x - network.x).numpy()
    assert (edge <= threat.epsilon * (1 + 1e-12)).all()
    assert edge.max() > 0.97 * threat.epsilon
    for i in range(attack.steps):
        state = attack.step(network, examples, state, tf.constant(i), seeds_of(examples))
        assert (threat.norm(state.x - network.x).numpy() <= threat.epsilon * (1 + 1e-9)).all()
        assert 0 <= state.x.numpy().min() <= state.x.numpy().max() <= 1
        assert (state.best_loss.numpy() >= best).all()
        best = state.best_loss.numpy()
    wrong = np.argmax(network(state.adversarial), 1) != network.y
    np.testing.assert_array_equal(state.fooled.numpy(), wrong)


def test_a_constant_network_gives_no_nan_and_is_not_fooled(network):
    examples = examples_of(network)._replace(labels=tf.zeros([8], tf.int32))
    for loss in ("ce", "dlr", "margin"):
        state = run(APGD(L2(0.5), loss, 10), lambda x: tf.zeros([len(x), 4], x.dtype), examples, seeds_of(examples))
        assert np.isfinite(state.x).all()
        assert not state.fooled.numpy().any()


def test_nan_logits_are_no_success(network):
    examples = examples_of(network)
    state = run(APGD(Linf(0.01), iterations=5), lambda x: network(x) * np.nan, examples, seeds_of(examples))
    assert not state.fooled.numpy().any()


def test_averaging_gradients_of_a_deterministic_network_changes_nothing(network):
    one, three = (trace(network, "L2", "ce", 20, eot=eot)[-1] for eot in (1, 3))
    np.testing.assert_allclose(one.best, three.best, rtol=1e-9)


def test_it_can_be_stopped_and_go_on(network):
    attack, examples = APGD(Linf(0.006), iterations=20), examples_of(network)
    seeds = seeds_of(examples)
    state = attack.begin(examples, seeds, 0)
    for start, stop in ((0, 7), (7, 21)):
        state = advance(attack, network, examples, state, seeds, tf.constant(start), tf.constant(stop))
    np.testing.assert_array_equal(state.best, run(attack, network, examples, seeds).best)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "drl"}, "Did you mean 'dlr'"),
        ({"iterations": 0}, "APGD.iterations"),
        ({"loss": "targeted-dlr"}, "APGD.targets"),
        ({"eot": 0}, "APGD.eot"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        APGD(Linf(8 / 255), **settings)


def test_gradients_of_a_network_that_changes_from_pass_to_pass_are_averaged(network):
    examples, passes = examples_of(network), tf.Variable(0, dtype=tf.int32)

    def moody(x):
        """Logits of the network, turned round by every third pass."""
        turned = tf.equal(passes.assign_add(1) % 3, 0)
        return tf.where(turned, -network(x), network(x))

    attack = APGD(Linf(0.006), iterations=3, eot=3)
    _, _, found = attack._evaluate(moody, examples, examples.x)
    slopes = []
    for sign in (1.0, 1.0, -1.0):
        with tf.GradientTape() as tape:
            tape.watch(examples.x)
            loss = tf.reduce_sum(cross_entropy(sign * network(examples.x), examples.labels))
        slopes.append(tape.gradient(loss, examples.x))
    np.testing.assert_allclose(found, sum(slopes) / 3, rtol=1e-9, atol=1e-12)
