import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_split, tiny_trainer, weights_of
from test_trainer import bn_network, steps

from awp_tf.attacks import FGSM, PGD, Clean, untargeted
from awp_tf.data import Split, ordered
from awp_tf.evaluation.accuracy import Evaluator, Measurement, craft, evaluate, robust_gap
from awp_tf.functional import predictor
from awp_tf.infra.errors import UserError
from awp_tf.methods import Standard
from awp_tf.noise import make_seed
from awp_tf.perturbations import Identity
from awp_tf.threats import Linf
from awp_tf.training.strategy import make_strategy

ATTACKS = {"fgsm": FGSM(Linf(0.2)), "pgd": PGD(Linf(0.2), steps=5)}


@pytest.fixture(scope="module")
def network():
    """Half trained; its BatchNorm has statistics of its own, other than those of any batch."""
    trainer = tiny_trainer(bn_network(), method=Standard(), attack=Clean(), perturbation=Identity(), rate=0.02)
    steps(trainer, [tiny_batch(16, seed=seed) for seed in range(6)])
    return trainer.network


def test_accuracies_are_counted_over_all_images(network):
    split = tiny_split(37)
    found = evaluate(network, ordered(split, 10), ATTACKS)
    right = np.argmax(predictor(network)(tf.constant(split.images)), 1) == split.labels
    assert found["clean"] == pytest.approx(right.mean())
    x_adv = FGSM(Linf(0.2))(untargeted(predictor(network), split.labels), tf.constant(split.images), make_seed(0))
    fooled = np.argmax(predictor(network)(x_adv), 1) == split.labels
    assert found["fgsm"] == pytest.approx((right & fooled).mean())
    assert found["pgd"] <= found["clean"]


def test_the_same_seed_gives_the_same_numbers_and_the_network_stays_as_it_was(network):
    before = weights_of(network)
    evaluator = Evaluator(network, ATTACKS, seed=3)
    batches = ordered(tiny_split(40), 16)
    assert evaluator(batches) == evaluator(batches)
    for old, new in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_trace_serves_the_smaller_last_batch_too(network):
    evaluator = Evaluator(network, ATTACKS)
    evaluator(ordered(tiny_split(37), 10))
    assert evaluator._right.experimental_get_tracing_count() == 1
    assert evaluator._withstood.experimental_get_tracing_count() == 1


def test_numbers_do_not_depend_on_the_size_of_batches(network):
    attacks = {"pgd": PGD(Linf(0.15), steps=3, relative_step_size=0.1)}  # the random start matters
    first, second = (evaluate(network, ordered(tiny_split(60), size), attacks) for size in (7, 60))
    assert first == second
    assert 0 < first["pgd"] < first["clean"]


def test_only_images_that_are_right_are_attacked_and_in_whole_batches(network):
    split, sizes = tiny_split(60), []
    right = np.argmax(predictor(network)(tf.constant(split.images)), 1) == split.labels

    def attack(objective, x, seed, start=None):
        tf.py_function(lambda size: sizes.append(int(size)), [tf.shape(x)[0]], [])
        return x

    found = evaluate(network, ordered(split, 8), {"none": attack})
    assert found["none"] == found["clean"] == right.mean()
    assert sum(sizes) == right.sum() > 8
    assert set(sizes[:-1]) == {8}


def test_a_network_that_is_never_right_withstands_nothing(network):
    split = tiny_split(20)
    wrong = dataclasses.replace(split, labels=(np.argmax(predictor(network)(split.images), 1) + 1).astype(np.int32) % 4)
    assert evaluate(network, ordered(wrong, 8), ATTACKS) == {"clean": 0.0, "fgsm": 0.0, "pgd": 0.0}


def replicas_apart(network):
    """As training leaves BatchNorm that is not synchronized: statistics of the second replica are its own."""
    first = network.non_trainable_variables[0].value
    first.values[1].assign(first.values[0] + 3.0)


def test_in_the_scope_of_a_strategy_all_devices_attack_the_network_of_the_first_which_is_the_saved_one():
    x, used = tiny_split(70).images, []
    labels = np.argmax(predictor(bn_network())(tf.constant(x)), 1).astype(np.int32)
    labels[:5] = (labels[:5] + 1) % 4
    batches, attacks = ordered(Split(x, labels), 8), {"pgd": PGD(Linf(0.02), steps=5)}
    expected = evaluate(bn_network(), batches, attacks)
    with make_strategy(2).scope():
        network = bn_network()
        replicas_apart(network)
        evaluator = Evaluator(network, attacks)
        withstood = evaluator._withstood

        def spy(weights, *rest):
            found = withstood(weights, *rest)
            used.append((weights[0].device, found["pgd"].device))
            return found

        evaluator._withstood = spy
        assert evaluator(batches) == expected
    assert len(set(used)) == 2
    assert all(weights == result for weights, result in used)
    assert 0 < expected["pgd"] < expected["clean"] < 1


def test_an_attack_may_not_be_called_clean(network):
    with pytest.raises(UserError, match="clean, which is measured anyway"):
        Evaluator(network, {"clean": PGD(Linf(8 / 255))})


def test_it_follows_the_weights(network):
    evaluator, batches = Evaluator(network, {}), ordered(tiny_split(40), 20)
    first, saved = evaluator(batches), network.get_weights()
    network.set_weights([np.zeros_like(w) for w in saved])
    zeros = evaluator(batches)["clean"]
    network.set_weights(saved)
    assert zeros == pytest.approx((tiny_split(40).labels == 0).mean())
    assert evaluator(batches) == first


def test_progress_is_reported_and_may_stop_it(network):
    measured = []
    Evaluator(network, {})(ordered(tiny_split(25), 10), measured.append)
    assert measured == [10, 10, 5]


def test_craft_returns_what_the_attack_finds(network):
    split = tiny_split(6)
    x, y = tf.constant(split.images), tf.constant(split.labels)
    adversarial = craft(network, PGD(Linf(0.2), steps=5), x, y)
    assert 0 < np.abs(adversarial - x).max() <= 0.2 + 1e-6


def test_measurement_takes_an_even_subset():
    subset = Measurement(Clean(), examples=10).subset(tiny_split(100))
    assert len(subset) == 10
    np.testing.assert_array_equal(subset.images[-1], tiny_split(100).images[-1])
    assert len(Measurement(Clean(), examples=None).subset(tiny_split(100))) == 100
    assert len(Measurement(Clean(), examples=500).subset(tiny_split(100))) == 100


def test_the_gap_is_train_minus_test():
    assert robust_gap(0.8, 0.5) == pytest.approx(0.3)


@pytest.mark.parametrize("settings", [{"examples": 0}, {"batch_size": -1}])
def test_senseless_settings_are_refused(settings):
    with pytest.raises(UserError, match=rf"Measurement\.{next(iter(settings))}: expected"):
        Measurement(Clean(), **settings)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int16"])
def test_labels_of_any_whole_type_and_images_of_another_precision(dtype, network):
    split = tiny_split(20)
    batches = [(split.images.astype(np.float64), split.labels.astype(dtype))]
    assert evaluate(network, batches, ATTACKS) == evaluate(network, ordered(split, 20), ATTACKS)


@pytest.mark.parametrize("scale", [255.0, -1.0, np.nan])
def test_images_outside_of_0_1_are_refused(scale, network):
    split = tiny_split(20)
    with pytest.raises(UserError, match=r"images: expected pixels in \[0, 1\]"):
        evaluate(network, [(split.images * scale, split.labels)], ATTACKS)
    with pytest.raises(UserError, match=r"images: expected pixels in \[0, 1\]"):
        craft(network, ATTACKS["fgsm"], tf.constant(split.images * scale, tf.float32), split.labels)


@pytest.mark.parametrize("allowed", [True, False])
def test_products_are_in_full_precision_and_later_again_as_they_were(allowed, network):
    rounded = tf.config.experimental.tensor_float_32_execution_enabled
    before, seen = rounded(), []
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        Evaluator(network, {})(ordered(tiny_split(40), 20), lambda images: seen.append(rounded()))
        assert seen == [False, False]
        assert rounded() == allowed
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
