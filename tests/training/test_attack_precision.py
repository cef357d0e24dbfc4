"""The search for the worst images in another precision than the rest of a step."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, tiny_batch
from test_train import network, recipe

from awp_tf.attacks import PGD
from awp_tf.examples import examples, share_of
from awp_tf.infra.errors import UserError
from awp_tf.networks.pretrained import from_file
from awp_tf.perturbations import AWP
from awp_tf.threats import Linf

HALF = "mixed_bfloat16"
ATTACK = PGD(Linf(0.1), steps=2, relative_step_size=0.5)


def trainer(**settings):
    settings = {"attack": ATTACK, "perturbation": AWP(0.01), **settings}
    return recipe(**settings).trainer(SHAPE, CLASSES, epochs=1, steps_per_epoch=1, seed=0)


def now_of(trainer):
    return trainer._now(share_of(examples(tiny_batch(), CLASSES)))


def found(trainer):
    now = now_of(trainer)
    return trainer.pure_step.craft(now, now.weights).numpy()


def test_the_attack_sees_a_network_in_its_precision():
    full, mixed, half = trainer(), trainer(attack_precision=HALF), trainer(precision=HALF)
    np.testing.assert_array_equal(found(mixed), found(half))
    assert np.any(found(mixed) != found(full))


def test_the_rest_of_a_step_keeps_its_own():
    full, mixed = trainer(), trainer(attack_precision=HALF)
    x_adv = tf.constant(found(mixed))
    for one in (full, mixed):
        one.pure_step._craft = lambda *_: x_adv
    steps = [one.train_step(tiny_batch()) for one in (full, mixed)]
    assert float(steps[0]["loss"]) == float(steps[1]["loss"])
    for before, after in zip(full.network.get_weights(), mixed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_is_saved_has_the_precision_of_training_and_no_second_set_of_weights():
    mixed = trainer(attack_precision=HALF)
    assert {layer.compute_dtype for layer in mixed.averaged.network.layers} == {"float32"}
    assert len(mixed.weights) == len(trainer().weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attack_precision": "bfloat16"},
            r"Recipe\.attack_precision: expected one of .* Did you mean 'mixed_bfloat16'",
        ),
        ({"attack_precision": HALF, "precision": "float64"}, r"expected none with precision float64 or replays"),
        ({"attack_precision": HALF, "replays": 2}, r"expected none with precision float64 or replays"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        recipe(**settings)


def test_a_network_of_a_file_has_the_precision_of_its_file(tmp_path: pathlib.Path):
    network(SHAPE, CLASSES).save(tmp_path / "first.keras")

    def of_file(shape, classes):
        return from_file(shape=shape, classes=classes, path=str(tmp_path / "first.keras"))

    with pytest.raises(UserError, match=r"Recipe\.attack_precision: expected a network that is built anew"):
        trainer(network=of_file, attack_precision=HALF)
