"""What the step takes in: several nearby points, weights, unequal shares, a transform of the gradient."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_network, tiny_split, tiny_trainer, weights_of
from test_trainer import METHODS, batches, bn_network, replicated

from awp_tf.attacks import Clean
from awp_tf.methods import AT
from awp_tf.perturbations import AWP, RAT, SAM, Perturbation, RandomPerturbation
from awp_tf.transforms import ClipByGlobalNorm


@dataclasses.dataclass(frozen=True)
class Pair(Perturbation):
    """Points on either side of the weights, as an antithetic estimate of a mean over noise takes them."""

    gamma: float
    signs: tuple = (1, -1)

    def __call__(self, weights, gradient, seed, start=None):
        (there,) = RandomPerturbation(self.gamma)(weights, gradient, seed)
        return [[w + sign * (n - w) for n, w in zip(there, weights, strict=True)] for sign in self.signs]


POINTS = {"awp": AWP(0.02), "pair": Pair(0.02), "sam": SAM(0.1, bn_update="both"), "rat": RAT(0.1, around=AWP(0.02))}


def weighted(count):
    """Global batches of 7, 7, 3 images with weights: shares of 4 and 3, then of 2 and 1."""
    split = tiny_split(17)
    arrays = (split.images.astype(np.float64), split.labels, np.linspace(0.0, 3.0, 17))
    return tf.data.Dataset.from_tensor_slices(arrays).batch(7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", ["pair", *(pytest.param(name, marks=pytest.mark.slow) for name in POINTS if name != "pair")]
)
def test_two_replicas_with_unequal_shares_weights_and_clipping_equal_one(name):
    method, perturbation = METHODS["trades"], POINTS[name]
    settings = {**method, "transform": ClipByGlobalNorm(0.05)}
    runs = [replicated(count, tiny_network, perturbation, settings, weighted) for count in (1, 2)]
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-10)
    assert_same_weights(runs[0][1].network, runs[1][1].network, atol=1e-10)
    if name == "pair":
        _, free = replicated(1, tiny_network, perturbation, method, weighted)
        with pytest.raises(AssertionError):  # the limit is one that clips
            assert_same_weights(runs[0][1].network, free.network, atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_the_step_takes_the_mean_over_nearby_points():
    (batch,) = batches(1, "float64")
    pair, there, back = (
        (bn_network(), perturbation) for perturbation in (Pair(0.02), RandomPerturbation(0.02), Pair(0.02, signs=(-1,)))
    )
    losses = []
    for network, perturbation in (pair, there, back):
        trainer = tiny_trainer(network, method=AT(), attack=Clean(), perturbation=perturbation)
        losses.append(float(trainer.train_step(batch)["loss"]))
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-12)
    for mean, *alone in zip(*(weights_of(network) for network, _ in (pair, there, back)), strict=True):
        np.testing.assert_allclose(mean, (alone[0] + alone[1]) / 2, atol=1e-12)
