"""The step: what SAM's equals, how passes see and move BatchNorm, from when weights move, where they decay."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network, tiny_trainer, weights_of
from test_trainer import METHODS, batches, bn_network, steps

from awp_tf.attacks import PGD, Clean, ZeroStart, untargeted
from awp_tf.examples import examples, share_of
from awp_tf.functional import bind
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT, Standard
from awp_tf.noise import make_seed
from awp_tf.perturbations import ASAM, AWP, SAM, Identity
from awp_tf.threats import Linf

PLAIN = {"method": Standard(), "attack": Clean()}


@pytest.mark.parametrize(("kind", "method"), [(SAM, METHODS["at"]), (ASAM, METHODS["standard"])], ids=["sam", "asam"])
def test_rho_zero_is_sgd_bit_for_bit(method, kind):
    trained = []
    for perturbation in (Identity(), kind(rho=0.0)):
        trainer = tiny_trainer(bn_network(), perturbation=perturbation, **method)
        steps(trainer, batches())
        trained.append(trainer.network)
    assert_same_weights(*trained)


COSTS = {  # method, perturbation, gradients a step with PGD-2: the table of docs/methods.md
    "standard": ("standard", Identity(), 1),
    "sam": ("standard", SAM(0.1), 2),
    "at": ("at", Identity(), 3),
    "at_awp": ("at", AWP(0.01), 4),
    "trades_awp": ("trades", AWP(0.005, steps=2), 5),
    "sam_at": ("at", SAM(0.1), 4),
}


@pytest.mark.parametrize(("method", "perturbation", "cost"), COSTS.values(), ids=COSTS)
def test_a_step_takes_as_many_gradients_as_documented(method, perturbation, cost, monkeypatch):
    gradient, counted = tf.GradientTape.gradient, []

    def counting(tape, *arguments, **settings):
        counted.append(1)
        return gradient(tape, *arguments, **settings)

    trainer = tiny_trainer(perturbation=perturbation, **METHODS[method])
    monkeypatch.setattr(tf.GradientTape, "gradient", counting)
    trainer.train_step(tiny_batch(4))  # not compiled, so that loops are loops of Python
    assert len(counted) == cost


def in_place_sam(network, x, y, *, rho, rate, weight_decay):
    """The step of SAM's authors: climb, take the gradient there, come back exactly, then SGD with weight decay."""
    variables = network.trainable_variables
    weights = [v.numpy() for v in variables]

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(cross_entropy(network(x, training=True), y))
        return [g.numpy() for g in tape.gradient(loss, [v.value for v in variables])]

    ascent = gradients()
    norm = np.sqrt(sum((g**2).sum() for g in ascent))
    for v, w, g in zip(variables, weights, ascent, strict=True):
        v.assign(w + rho * g / (norm + 1e-12))
    for v, w, g in zip(variables, weights, gradients(), strict=True):
        v.assign(w - rate * (g + weight_decay * w))


@pytest.mark.usefixtures("float64")
def test_sam_equals_the_step_of_its_authors_that_moves_variables():
    ours, theirs = bn_network(), bn_network()
    (batch,) = batches(1, "float64")
    tiny_trainer(ours, perturbation=SAM(0.5, bn_update="both"), weight_decay=0.1, **PLAIN).train_step(batch)
    in_place_sam(theirs, *batch, rho=0.5, rate=0.1, weight_decay=0.1)
    assert_same_weights(ours, theirs, atol=1e-12)  # BatchNorm's statistics are among them


def statistics(perturbation, **settings):
    network = bn_network()
    tiny_trainer(network, perturbation=perturbation, **{**PLAIN, **settings}).train_step(batches(1, "float64")[0])
    return np.concatenate([v.numpy() for v in network.non_trainable_variables])


@pytest.mark.usefixtures("float64")
def test_batch_norm_moves_with_the_passes_that_bn_update_names():
    at_the_weights = statistics(Identity())
    clean, perturbed, both = (statistics(SAM(0.5, bn_update=name)) for name in ("clean", "perturbed", "both"))
    np.testing.assert_array_equal(clean, at_the_weights)
    start = np.concatenate([v.numpy() for v in bn_network().non_trainable_variables])
    # Running statistics keep 0.9 of themselves a pass: first clean, then perturbed.
    np.testing.assert_allclose(both, 0.9 * clean + (perturbed - 0.9 * start), atol=1e-12)
    assert np.abs(perturbed - clean).max() > 1e-3


@pytest.mark.usefixtures("float64")
def test_in_turns_the_clean_pass_is_the_first():
    attacked = {"method": AT(), "attack": METHODS["at"]["attack"]}
    once, twice = (statistics(SAM(0.5), alternations=turns, **attacked) for turns in (1, 2))
    np.testing.assert_array_equal(once, twice)
    assert np.abs(statistics(AWP(0.5), alternations=2, **attacked) - once).max() > 1e-6


def test_weight_decay_of_sam_is_taken_at_the_weights_themselves():
    moved = []
    for weight_decay in (0.0, 0.5):
        network = tiny_network()
        start = [v.numpy() for v in network.trainable_variables]
        tiny_trainer(network, perturbation=SAM(1.0), weight_decay=weight_decay, **PLAIN).train_step(tiny_batch(8))
        moved.append([w - s for w, s in zip(weights_of(network), start, strict=True)])
    for without, with_decay, at in zip(*moved, start, strict=True):
        np.testing.assert_allclose(with_decay - without, -0.1 * 0.5 * at, atol=1e-6)


def test_weights_are_perturbed_from_an_epoch_on_and_not_an_epoch_sooner():
    trainer = tiny_trainer(perturbation=AWP(0.02), perturb_from=2, steps_per_epoch=2)
    sizes = [logs["v_over_w/conv1"] for logs in steps(trainer, batches(6))]
    np.testing.assert_allclose(sizes, [0, 0, 0, 0, 0.02, 0.02], rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_the_attack_sees_batch_norm_in_the_mode_that_the_method_says():
    attack, batch = PGD(Linf(0.1), steps=3, start=ZeroStart()), tiny_batch(8, "float64")
    found = []
    for training in (True, False):
        trainer = tiny_trainer(bn_network(), method=AT(attack_in_training_mode=training), attack=attack)
        now = trainer._now(share_of(examples(batch, 4)))
        predict = bind(trainer.network, now.weights, now.state, training=training)
        found.append(trainer.pure_step.craft(now, now.weights))
        np.testing.assert_array_equal(found[-1], attack(untargeted(predict, batch[1]), batch[0], make_seed(0)))
    assert AT() == AT(attack_in_training_mode=True)  # as the authors of AWP do
    assert np.abs(found[0] - found[1]).max() > 0.01
