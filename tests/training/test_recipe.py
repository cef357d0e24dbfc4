"""What a recipe says reaches the trainer: a setting lost between them would be a number that nobody doubts."""

import numpy as np
import pytest
from helpers import CLASSES, SHAPE

from awp_tf.attacks import PGD
from awp_tf.averaging import EMA
from awp_tf.free import FreeTrainer
from awp_tf.infra.errors import UserError
from awp_tf.methods import MART
from awp_tf.micro_batches import MicroBatchStep
from awp_tf.networks import small_cnn
from awp_tf.perturbations import AWP, Identity
from awp_tf.schedules import Cosine, Cyclic, Piecewise
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from awp_tf.transforms import ClipByGlobalNorm


def network(shape, classes):
    return small_cnn(shape=shape, classes=classes, width=2)


RECIPE = {
    "network": network,
    "method": MART(3.0),
    "attack": PGD(Linf(0.2), steps=3),
    "learning_rate": Piecewise(0.5, epochs=5, drops=(0.4,), factor=0.5),
    "transform": ClipByGlobalNorm(0.7),
    "momentum": 0.8,
    "nesterov": True,
    "weight_decay": 0.003,
    "averaging": EMA,
}


def rates(trainer, steps):
    return [float(trainer.optimizer._learning_rate(step)) for step in steps]


@pytest.mark.parametrize(("whole_epochs", "expected"), [(True, [0.5, 0.25, 0.25]), (False, [0.5, 0.5, 0.25])])
def test_every_setting_arrives(whole_epochs, expected):
    recipe = Recipe(
        **RECIPE, perturbation=AWP(0.03), perturb_from=0.2, alternations=2, accumulation=3, whole_epochs=whole_epochs
    )
    trainer = recipe.trainer(SHAPE, CLASSES, epochs=5, steps_per_epoch=4, seed=9)
    for name in ("method", "attack", "perturbation", "transform", "weight_decay", "alternations"):
        assert getattr(trainer, name) == RECIPE.get(name, getattr(recipe, name)), name
    assert (trainer.perturb_from, trainer.steps_per_epoch, trainer.seed) == (1.0, 4, 9)
    assert isinstance(trainer.averaged, EMA)
    assert isinstance(trainer.pure_step, MicroBatchStep)
    assert trainer.pure_step._parts == 3
    assert (trainer.optimizer.momentum, trainer.optimizer.nesterov) == (0.8, True)
    np.testing.assert_allclose(rates(trainer, [3, 4, 7]), expected)


def test_replays_make_more_updates_of_an_epoch():
    recipe = Recipe(**RECIPE, perturbation=Identity(), replays=4)
    trainer = recipe.trainer(SHAPE, CLASSES, epochs=5, steps_per_epoch=4, seed=0)
    assert isinstance(trainer, FreeTrainer)
    assert trainer.steps_per_epoch == 16
    np.testing.assert_allclose(rates(trainer, [30, 31]), [0.5, 0.25])


@pytest.mark.parametrize("kind", [Cosine, Cyclic])
def test_no_epoch_is_trained_at_rate_0(kind):
    recipe = Recipe(**{**RECIPE, "learning_rate": kind(0.1, 5)}, whole_epochs=True)
    with pytest.raises(UserError, match="whole_epochs: expected False with a learning rate that ends at 0"):
        recipe.trainer(SHAPE, CLASSES, epochs=5, steps_per_epoch=4, seed=0)
    recipe = Recipe(**{**RECIPE, "learning_rate": kind(0.1, 5)})
    assert min(rates(recipe.trainer(SHAPE, CLASSES, epochs=5, steps_per_epoch=4, seed=0), range(19))) > 0
