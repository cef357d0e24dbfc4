"""Searches for the worst weights near the current ones: perturbation(weights, gradient, seed).

Siblings of the attacks, one space up: handed the weights and a function that gives the gradient of
the outer loss (averaged over all replicas), they return one or more nearby points, over which the step takes
the mean, and write no variable.
"""

from awp_tf.perturbations.awp import AWP, RandomPerturbation
from awp_tf.perturbations.base import BN_UPDATES, Identity, Loss, Perturbation, Points, relative_norm, relative_norms
from awp_tf.perturbations.flat import FS, LookAhead
from awp_tf.perturbations.sam import ASAM, SAM
from awp_tf.perturbations.taylor import RAT
from awp_tf.perturbations.where import Where

__all__ = [
    "ASAM",
    "AWP",
    "BN_UPDATES",
    "FS",
    "RAT",
    "SAM",
    "Identity",
    "LookAhead",
    "Loss",
    "Perturbation",
    "Points",
    "RandomPerturbation",
    "Where",
    "relative_norm",
    "relative_norms",
]
