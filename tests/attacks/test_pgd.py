import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_network

from awp_tf.attacks import FGSM, PGD, Restarts, ZeroStart, targeted, untargeted
from awp_tf.functional import predictor
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.noise import make_seed
from awp_tf.threats import L2, Linf


@pytest.fixture(scope="module")
def victim():
    network = tiny_network()
    x, y = tiny_batch(16)
    return network, predictor(network), x, y


def run(attack, victim, seed=0):
    _, predict, x, y = victim
    return attack(untargeted(predict, y), x, make_seed(seed)).numpy()


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


def test_restarts_work_on_inputs_of_any_rank():
    x = tf.zeros([3, 2, 4])
    objective = lambda z: tf.reduce_sum(z, axis=[1, 2]) * [1.0, -1.0, 1.0]  # noqa: E731
    attack = PGD(Linf(0.1), steps=1, relative_step_size=0.1, box=None)
    found = Restarts(attack, 4)(objective, x, make_seed(0))
    singles = [objective(attack(objective, x, make_seed(0).fold(i))).numpy() for i in range(4)]
    np.testing.assert_allclose(objective(found), np.max(singles, axis=0), rtol=1e-6)


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


def test_restarts_go_on_from_a_start_once_and_then_begin_anew():
    starts = []

    def attack(objective, x, seed, start=None):
        starts.append(start)
        return x

    x = tf.zeros([2, 4, 4, 3])
    Restarts(attack, 3)(lambda x: tf.zeros([2]), x, make_seed(0), x + 1)
    assert (starts[0].numpy() == 1).all()
    assert set(starts[1:]) == {None}
