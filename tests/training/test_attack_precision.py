"""The search for the worst images in another precision than the rest of a step."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, tiny_batch
from test_loss_scale import cosine
from test_train import network, recipe

from awp_tf.attacks import PGD
from awp_tf.examples import examples, share_of
from awp_tf.free import FreeTrainer
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.networks import small_cnn
from awp_tf.networks.pretrained import from_file
from awp_tf.perturbations import AWP
from awp_tf.threats import Linf
from awp_tf.trainer import RobustTrainer
from awp_tf.training.strategy import mirrored

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


@pytest.mark.parametrize(("make", "width"), [(RobustTrainer, 8), (FreeTrainer, 4)])
def test_another_network_is_not_attacked_and_none_where_one_pass_serves_both(make, width):
    attacked = small_cnn(shape=SHAPE, classes=CLASSES, width=width)
    with pytest.raises(UserError, match=rf"{make.__name__}\.attacked: expected"):
        make(network(SHAPE, CLASSES), method=AT(), attack=ATTACK, attacked=attacked)


@pytest.mark.parametrize("settings", [{}, {"accumulation": 2}], ids=["whole", "in parts"])
def test_replicas_and_parts_of_a_batch_are_attacked_in_it_too(settings):
    strategy = mirrored(["CPU:0", "CPU:1"])
    with strategy.scope():
        mixed, full = (trainer(attack_precision=name, **settings) for name in (HALF, None))
    x, y = tiny_batch(8)
    shares = strategy.experimental_distribute_values_from_function(
        lambda context: tuple(t[4 * context.replica_id_in_sync_group :][:4] for t in (x, y))
    )
    moved = []
    for one in (mixed, full):
        before = one.network.get_weights()
        tf.function(lambda batch, one=one: strategy.run(one.train_step, args=(batch,)), autograph=False)(shares)
        after = one.network.get_weights()
        moved.append([a - b for a, b in zip(after, before, strict=True)])
    assert any(np.any(one != other) for one, other in zip(*moved, strict=True))
    assert cosine(*moved) > 0.95


def test_a_network_of_a_file_has_the_precision_of_its_file(tmp_path: pathlib.Path):
    network(SHAPE, CLASSES).save(tmp_path / "first.keras")

    def of_file(shape, classes):
        return from_file(shape=shape, classes=classes, path=str(tmp_path / "first.keras"))

    with pytest.raises(
        UserError, match=r"Recipe\.attack_precision: expected a network whose layers follow Keras' policy"
    ):
        trainer(network=of_file, attack_precision=HALF)
