import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.networks import small_cnn
from awp_tf.perturbations import AWP
from awp_tf.schedules import Constant
from awp_tf.threats import Linf
from awp_tf.training.recipe import Recipe
from tools.shared_step import SharedStep, recorded

RECIPE = Recipe(small_cnn, AT(), PGD(Linf(0.1), steps=1), Constant(0.1), perturbation=AWP(0.01))
X = np.random.default_rng(0).uniform(size=(8, 8, 8, 1)).astype(np.float32)
Y = np.arange(8, dtype=np.int32)


@pytest.fixture(scope="module")
def two():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())


def shared(strategy, **changes):
    step = SharedStep(dataclasses.replace(RECIPE, **changes), strategy, X, Y, 10)
    step.trace()
    return step


@pytest.fixture(scope="module")
def whole(two):
    return shared(two)


def gradients(step):
    """How often gradients of all weights are added up."""
    return sum(len(group) == len(step.trainer.network.trainable_variables) for group in step.reductions)


def test_m_sharpness_saves_one_reduction_of_all_gradients(two, whole):
    own = shared(two, m_sharpness=True)
    assert gradients(whole) == gradients(own) + 1 > 1
    weights = sum(4 * int(np.prod(v.shape)) for v in whole.trainer.network.trainable_variables)
    assert whole.reduced_bytes - own.reduced_bytes == weights


def test_a_batch_that_does_not_go_round_is_refused(two):
    with pytest.raises(UserError, match="expected a multiple of the 2 devices, received 7"):
        SharedStep(RECIPE, two, X[:7], Y[:7], 10)


def test_two_replicas_take_the_step_of_one(two):
    one, both = shared(tf.distribute.get_strategy()), shared(two)
    np.testing.assert_allclose(both(), one(), rtol=1e-3)
    assert one.reductions == []


def test_reductions_alone_are_those_of_the_step_and_leave_its_record(two, whole):
    before = list(whole.reductions)
    with recorded(two) as seen:
        alone = whole.reduce_alone()
    assert seen == before == whole.reductions
    assert alone() == 0.0
