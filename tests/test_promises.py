"""What every attack, threat and loss promises, in one table: a new one is one line in it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from golden import mlp
from helpers import tiny_batch, tiny_network, weights_of

from awp_tf import losses, methods
from awp_tf.attacks import (
    APGD,
    FAB,
    FGSM,
    NFGSM,
    PGD,
    SPSA,
    Clean,
    Examples,
    GaussianStart,
    LastIterate,
    Restarts,
    Square,
    Transfer,
    ZeroStart,
    untargeted,
)
from awp_tf.attacks.search import run
from awp_tf.functional import predictor
from awp_tf.losses import cross_entropy, misclassified
from awp_tf.noise import ImageSeeds, make_seed
from awp_tf.threats import L2, Linf

COUNT, CLASSES = 8, 5
OTHER_NETWORK = mlp(COUNT, 6, 8, CLASSES, 7)
LINF, L2_BALL = Linf(0.02), L2(0.2)


class Row(NamedTuple):
    """An attack or a search, and what it cannot promise."""

    make: Callable
    noise: bool = True
    misclassified: bool = True  # whether images that are misclassified from the start are for it
    reach: float = 1.0  # how many epsilon its images may be away


def other(x):
    """Another network, on which the attack transfer crafts."""
    return tf.cast(OTHER_NETWORK(tf.cast(x, tf.float64)), x.dtype)


ROWS = {
    "clean": Row(lambda threat: Clean(), noise=False),
    "fgsm": Row(FGSM, noise=False),
    "n-fgsm": Row(NFGSM, reach=3.0),
    "pgd": Row(lambda threat: PGD(threat, steps=5)),
    "pgd from a gaussian": Row(lambda threat: PGD(threat, steps=5, start=GaussianStart())),
    "pgd from zero": Row(lambda threat: PGD(threat, steps=5, start=ZeroStart()), noise=False),
    "restarts": Row(lambda threat: Restarts(PGD(threat, steps=3), 2)),
    "pgd, judged": Row(lambda threat: LastIterate(PGD(threat, steps=5))),
    "cw": Row(lambda threat: LastIterate(PGD(threat, steps=5), loss="margin")),
    "transfer": Row(lambda threat: Transfer(other, LastIterate(PGD(threat, steps=5)))),
    "apgd-ce": Row(lambda threat: APGD(threat, iterations=8)),
    "apgd-dlr": Row(lambda threat: APGD(threat, "dlr", iterations=8)),
    "apgd-t": Row(lambda threat: APGD(threat, "targeted-dlr", iterations=8, targets=1)),
    "fab": Row(lambda threat: FAB(threat, iterations=5), misclassified=False),
    "fab-t": Row(lambda threat: FAB(threat, iterations=5, targets=1), misclassified=False),
    "square": Row(lambda threat: Square(threat, queries=30)),
    "spsa": Row(lambda threat: SPSA(threat, iterations=3, samples=16)),
}
THREATS = [LINF, L2_BALL]
attacks_and_threats = pytest.mark.parametrize("threat", THREATS, ids=["Linf", "L2"])
every_attack = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


class Case(NamedTuple):
    """Images, their labels, their places in the data set, and a network."""

    predict: Callable
    x: tf.Tensor
    y: tf.Tensor
    image: tf.Tensor

    def take(self, rows):
        return Case(self.predict, *(tf.gather(part, rows) for part in (self.x, self.y, self.image)))


def case(dtype="float64"):
    network = mlp(COUNT, 6, 8, CLASSES, 0, dtype)
    labels = np.array(network.y)
    labels[0] = (labels[0] + 1) % CLASSES  # one image is misclassified from the start
    return Case(network, network.x, tf.constant(labels, tf.int32), tf.range(COUNT, dtype=tf.int64))


def attacked(attack, case, seed=0):
    """(Images, where they are said to fool the network), by an attack or a search."""
    seeds = ImageSeeds(make_seed(seed).key, case.image)
    if not hasattr(attack, "begin"):
        adversarial = attack(untargeted(case.predict, case.y), case.x, seeds)
        return adversarial, misclassified(case.predict(adversarial), case.y)
    logits = case.predict(case.x)
    wrong = tf.where(tf.one_hot(case.y, CLASSES, True, False, dtype=tf.bool), logits.dtype.min, logits)
    targets = tf.argmax(wrong, -1, output_type=tf.int32)
    state = run(attack, case.predict, Examples(case.x, case.y, targets, case.image), seeds)
    return state.adversarial, state.fooled


def length(threat, delta):
    delta = np.asarray(delta, np.float64).reshape(len(delta), -1)
    return np.abs(delta).max(1) if isinstance(threat, Linf) else np.sqrt((delta**2).sum(1))


@every_attack
@attacks_and_threats
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_attack_stays_in_the_ball_and_in_the_box_in_the_precision_of_its_images(row, threat, dtype):
    of = case(dtype)
    adversarial, fooled = attacked(row.make(threat), of)
    assert adversarial.dtype == dtype
    assert np.isfinite(adversarial).all()
    assert 0 <= np.min(adversarial) <= np.max(adversarial) <= 1
    inside = length(threat, adversarial - of.x) <= row.reach * threat.epsilon * (1 + 1e-5)
    assert inside[fooled.numpy()].all()
    if not hasattr(row.make(threat), "begin"):
        assert inside.all()


@every_attack
@attacks_and_threats
def test_an_attack_is_a_function_of_its_seed(row, threat):
    first, again, other = (attacked(row.make(threat), case(), seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    if not row.noise:
        np.testing.assert_array_equal(first[0], other[0])


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.noise and not name.startswith("fab")])
def test_another_seed_is_another_attack(name):
    first, other = (attacked(ROWS[name].make(LINF), case(), seed)[0] for seed in (0, 1))
    assert not np.array_equal(first, other)


@every_attack
@attacks_and_threats
def test_an_attack_on_an_image_does_not_depend_on_its_batch(row, threat):
    rows = [5, 2, 7]
    whole, alone = attacked(row.make(threat), case()), attacked(row.make(threat), case().take(rows))
    for one, other in zip(whole, alone, strict=True):
        np.testing.assert_allclose(tf.cast(tf.gather(one, rows), tf.float64), tf.cast(other, tf.float64), atol=1e-9)


@every_attack
@attacks_and_threats
def test_an_attack_never_ends_below_its_start(row, threat):
    of = case()
    adversarial, fooled = attacked(row.make(threat), of)
    before = misclassified(of.predict(of.x), of.y).numpy()
    if hasattr(row.make(threat), "begin"):
        if row.misclassified:
            assert fooled.numpy()[before].all()
        right = misclassified(of.predict(adversarial), of.y).numpy()
        assert right[fooled.numpy()].all()
    else:
        start, end = (cross_entropy(of.predict(x), of.y) for x in (of.x, adversarial))
        assert (end.numpy() >= start.numpy() - 1e-12).all()


# Threats and noise under XLA have tests of their own, below and in test_noise.py.
COMPILED = [
    *((name, LINF) for name in ("n-fgsm", "pgd", "restarts", "cw", "apgd-ce", "apgd-t", "fab-t", "square", "spsa")),
    *((name, L2_BALL) for name in ("pgd", "apgd-ce", "fab-t", "square")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threat"), COMPILED, ids=repr)
def test_xla_finds_what_the_plain_attack_finds(name, threat):
    of, attack = case(), ROWS[name].make(threat)
    compiled = tf.function(lambda x, y, image: attacked(attack, Case(of.predict, x, y, image)), jit_compile=True)
    for one, other in zip(attacked(attack, of), compiled(of.x, of.y, of.image), strict=True):
        # XLA has a tanh of its own, whose last digits eight steps enlarge.
        np.testing.assert_allclose(tf.cast(one, tf.float64), tf.cast(other, tf.float64), atol=1e-7)


@every_attack
def test_an_attack_leaves_the_network_as_it_was(row):
    network = tiny_network()
    before = weights_of(network)
    if "transfer" in str(row.make(LINF)).lower():
        attack = Transfer(predictor(network), LastIterate(PGD(LINF, steps=2)))
    else:
        attack = row.make(LINF)
    x, y = tiny_batch(4)
    examples = Examples(x, y, (y + 1) % 4, tf.range(4, dtype=tf.int64))
    seeds = ImageSeeds(make_seed(0).key, examples.image)
    if hasattr(attack, "begin"):
        run(attack, predictor(network), examples, seeds)
    else:
        attack(untargeted(predictor(network), y), x, seeds)
    for one, other in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(one, other)


DELTA = np.random.default_rng(0).normal(0, 1, (6, 4, 4, 3))
OF_THREATS = {
    "project": lambda threat, like, seeds: threat.project(like),
    "ascend": lambda threat, like, seeds: threat.ascend(like),
    "sample": lambda threat, like, seeds: threat.sample(like, seeds),
    "edge": lambda threat, like, seeds: threat.edge(like, seeds),
}


@attacks_and_threats
@pytest.mark.parametrize("function", OF_THREATS.values(), ids=OF_THREATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_threat_treats_every_image_alike_in_every_precision_with_and_without_xla(threat, function, dtype):
    like, image, rows = tf.constant(DELTA, dtype), tf.range(6, dtype=tf.int64), [4, 1]
    apply = lambda like, image: function(threat, like, ImageSeeds(make_seed(3).key, image))  # noqa: E731
    whole = apply(like, image)
    assert whole.dtype == dtype
    rounding = 1e-6 if dtype == "float32" else 1e-12
    alone = apply(tf.gather(like, rows), tf.gather(image, rows))
    np.testing.assert_allclose(tf.gather(whole, rows), alone, atol=rounding)
    np.testing.assert_allclose(whole, tf.function(apply, jit_compile=True)(like, image), atol=rounding)


@attacks_and_threats
def test_what_a_threat_gives_is_in_its_ball(threat):
    like, seeds = tf.constant(DELTA), ImageSeeds(make_seed(3).key, tf.range(6, dtype=tf.int64))
    most = threat.epsilon * (1 + 1e-9)
    projected = threat.project(like)
    assert (length(threat, projected) <= most).all()
    np.testing.assert_allclose(threat.project(projected), projected, rtol=1e-9)
    assert (length(threat, threat.sample(like, seeds)) <= most).all()
    np.testing.assert_allclose(length(threat, threat.edge(like, seeds)), threat.epsilon, rtol=1e-9)
    np.testing.assert_allclose(length(threat, threat.ascend(like)), 1, rtol=1e-9)
    np.testing.assert_allclose(threat.norm(like), length(threat, like), rtol=1e-12)


RNG = np.random.default_rng(1)
LOGITS, OTHER = RNG.normal(0, 3, (2, 6, 5))
LABELS, TARGETS = np.array([0, 1, 2, 3, 4, 0], np.int32), np.array([1, 2, 3, 4, 0, 2], np.int32)


def of_method(method):
    def loss(z, a, y, t):
        return method.loss({"x": z, "x_adv": a}.__getitem__, "x", "x_adv", y)

    return loss


LOSSES = {
    "cross_entropy": lambda z, a, y, t: losses.cross_entropy(z, y),
    "kl_divergence": lambda z, a, y, t: losses.kl_divergence(z, a),
    "boosted_cross_entropy": lambda z, a, y, t: losses.boosted_cross_entropy(z, y),
    "mart_regularizer": lambda z, a, y, t: losses.mart_regularizer(z, a, y),
    "margin": lambda z, a, y, t: losses.margin(z, y),
    "targeted_margin": lambda z, a, y, t: losses.targeted_margin(z, y, t),
    "dlr": lambda z, a, y, t: losses.dlr(z, y),
    "targeted_dlr": lambda z, a, y, t: losses.targeted_dlr(z, y, t),
    "Standard": of_method(methods.Standard()),
    "AT": of_method(methods.AT()),
    "TRADES": of_method(methods.TRADES()),
    "MART": of_method(methods.MART()),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def arguments(dtype="float64", rows=slice(None), logits=LOGITS):
    return tf.constant(logits[rows], dtype), tf.constant(OTHER[rows], dtype), LABELS[rows], TARGETS[rows]


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_has_a_value_for_every_example_of_its_own(loss, dtype):
    whole, alone = loss(*arguments(dtype)), loss(*arguments(dtype, [3, 1]))
    assert whole.shape == (6,)
    assert whole.dtype == dtype
    np.testing.assert_allclose(tf.gather(whole, [3, 1]), alone, rtol=1e-6 if dtype == "float32" else 1e-12)


@every_loss
def test_xla_computes_the_same_loss(loss):
    np.testing.assert_allclose(tf.function(loss, jit_compile=True)(*arguments()), loss(*arguments()), rtol=1e-9)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_and_its_gradient_are_finite_however_sure_the_network_is(loss, dtype):
    z, *rest = arguments(dtype, logits=LOGITS * 1e4)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(z, *rest)
    assert np.isfinite(value).all()
    gradient = tape.gradient(value, z)
    assert gradient is None or np.isfinite(gradient).all()


@every_loss
def test_a_loss_does_not_see_what_softmax_does_not_see(loss):
    np.testing.assert_allclose(loss(*arguments(logits=LOGITS + 50)), loss(*arguments()), rtol=1e-9)
