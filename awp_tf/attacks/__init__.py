"""Searches for the worst input near a given one: attack(objective, x, seed) -> x_adv.

An attack is handed a function to maximise and never sees the network, the labels or the loss.
"""

from awp_tf.attacks.objectives import Objective, targeted, untargeted
from awp_tf.attacks.pgd import FGSM, PGD, Attack, Clean, Restarts
from awp_tf.attacks.starts import GaussianStart, UniformStart, ZeroStart

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "Clean",
    "GaussianStart",
    "Objective",
    "Restarts",
    "UniformStart",
    "ZeroStart",
    "targeted",
    "untargeted",
]
