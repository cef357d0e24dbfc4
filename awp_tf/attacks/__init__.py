"""Searches for the worst input near a given one.

An `Attack` is handed a function to maximise and never sees the network, the labels or the loss:
attack(objective, x, seed) -> x_adv. A `Search` knows them, and notices when it has succeeded: it is what
evaluation runs.
"""

from awp_tf.attacks.apgd import APGD
from awp_tf.attacks.autoattack import AutoAttack
from awp_tf.attacks.fab import FAB
from awp_tf.attacks.nfgsm import NFGSM
from awp_tf.attacks.pgd import (
    FGSM,
    PGD,
    Attack,
    Clean,
    GaussianStart,
    Restarts,
    UniformStart,
    ZeroStart,
    targeted,
    untargeted,
)
from awp_tf.attacks.search import Examples, LastIterate, Search, Transfer
from awp_tf.attacks.spsa import SPSA
from awp_tf.attacks.square import Square

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "NFGSM",
    "PGD",
    "SPSA",
    "Attack",
    "AutoAttack",
    "Clean",
    "Examples",
    "GaussianStart",
    "LastIterate",
    "Restarts",
    "Search",
    "Square",
    "Transfer",
    "UniformStart",
    "ZeroStart",
    "targeted",
    "untargeted",
]
