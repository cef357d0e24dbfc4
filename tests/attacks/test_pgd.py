import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_network, weights_of

from awp_tf.attacks import FGSM, PGD, Clean, GaussianStart, Restarts, ZeroStart, targeted, untargeted
from awp_tf.functional import predictor
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.noise import make_seed
from awp_tf.threats import L2, Linf

ATTACKS = [
    Clean(),
    FGSM(Linf(0.1)),
    PGD(Linf(0.1), steps=5),
    PGD(L2(0.5), steps=5),
    PGD(Linf(0.1), steps=3, start=GaussianStart()),
    PGD(L2(0.5), steps=3, start=ZeroStart()),
    Restarts(PGD(Linf(0.1), steps=3), 3),
]


@pytest.fixture(scope="module")
def victim():
    network = tiny_network()
    x, y = tiny_batch(16)
    return network, predictor(network), x, y


def run(attack, victim, seed=0):
    _, predict, x, y = victim
    return attack(untargeted(predict, y), x, make_seed(seed)).numpy()


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_stays_in_the_ball_and_in_the_box(attack, victim):
    x = victim[2].numpy()
    adversarial = run(attack, victim)
    inner = getattr(attack, "attack", attack)
    if not isinstance(inner, Clean):
        delta = adversarial - x
        size = np.abs(delta).max() if isinstance(inner.threat, Linf) else np.sqrt((delta**2).sum((1, 2, 3)).max())
        assert 0 < size <= inner.threat.epsilon + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert adversarial.dtype == np.float32


@pytest.mark.parametrize("attack", ATTACKS[1:], ids=repr)
def test_raises_the_loss_of_the_batch(attack, victim):
    _, predict, x, y = victim
    before, after = (np.mean(cross_entropy(predict(tf.constant(z)), y)) for z in (x.numpy(), run(attack, victim)))
    assert after > before


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_leaves_the_network_as_it_was(attack, victim):
    before = weights_of(victim[0])
    run(attack, victim)
    for old, new in zip(before, weights_of(victim[0]), strict=True):
        np.testing.assert_array_equal(old, new)


def test_is_a_function_of_the_seed(victim):
    attack = PGD(Linf(0.1), steps=2)
    np.testing.assert_array_equal(run(attack, victim, seed=1), run(attack, victim, seed=1))
    assert (run(attack, victim, seed=1) != run(attack, victim, seed=2)).any()


def test_steps_are_the_formula_of_the_paper(victim):
    _, predict, x, y = victim
    epsilon, alpha, expected = 0.1, 0.025, x.numpy()
    for _ in range(6):
        with tf.GradientTape() as tape:
            z = tf.constant(expected)
            tape.watch(z)
            loss = tf.reduce_mean(cross_entropy(predict(z), y))
        moved = expected + alpha * np.sign(tape.gradient(loss, z))
        expected = np.clip(np.clip(moved, x - epsilon, x + epsilon), 0, 1)
    got = run(PGD(Linf(epsilon), steps=6, relative_step_size=0.25, start=ZeroStart()), victim)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_fgsm_takes_one_whole_step(victim):
    _, predict, x, y = victim
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(cross_entropy(predict(x), y))
    expected = np.clip(x + 0.1 * np.sign(tape.gradient(loss, x)), 0, 1)
    np.testing.assert_allclose(run(FGSM(Linf(0.1)), victim), expected, atol=1e-7)


def test_restarts_keep_the_worst_of_their_runs(victim):
    _, predict, x, y = victim
    objective = untargeted(predict, y)
    attack = PGD(Linf(0.1), steps=1)
    singles = [objective(attack(objective, x, make_seed(0).fold(i))).numpy() for i in range(4)]
    kept = objective(Restarts(attack, 4)(objective, x, make_seed(0))).numpy()
    np.testing.assert_allclose(kept, np.max(singles, axis=0), rtol=1e-5)


def test_targeted_attack_moves_towards_its_target(victim):
    _, predict, x, y = victim
    targets = (y + 1) % 4
    moved = PGD(Linf(0.3), steps=10)(targeted(predict, targets), x, make_seed(0))
    assert np.mean(cross_entropy(predict(moved), targets)) < np.mean(cross_entropy(predict(x), targets))
    assert np.mean(np.argmax(predict(moved), 1) == targets) > np.mean(np.argmax(predict(x), 1) == targets)


def test_a_given_start_is_continued_from(victim):
    _, predict, x, y = victim
    objective = untargeted(predict, y)
    once = PGD(Linf(0.1), steps=3, start=ZeroStart())
    twice = once(objective, x, make_seed(0), once(objective, x, make_seed(0)))
    six = PGD(Linf(0.1), steps=6, start=ZeroStart())(objective, x, make_seed(0))
    np.testing.assert_allclose(twice, six, atol=1e-6)


def test_works_without_knowing_the_batch_size(victim):
    network, predict, x, y = victim
    attack = Restarts(PGD(L2(0.5), steps=2), 2)
    spec = [tf.TensorSpec([None, *x.shape[1:]]), tf.TensorSpec([None], tf.int32)]
    compiled = tf.function(
        lambda x, y: attack(untargeted(predictor(network), y), x, make_seed(0)), input_signature=spec
    )
    np.testing.assert_allclose(compiled(x, y), attack(untargeted(predict, y), x, make_seed(0)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(Linf(8 / 255), steps=0), "PGD.steps: expected a whole number >= 1, received 0"),
        (lambda: PGD(Linf(8 / 255), steps=2.5), "PGD.steps: expected a whole number >= 1, received 2.5"),
        (lambda: PGD(Linf(8 / 255), relative_step_size=-0.1), "PGD.relative_step_size: expected a number > 0"),
        (lambda: Restarts(PGD(Linf(8 / 255)), 0), "Restarts.times"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
