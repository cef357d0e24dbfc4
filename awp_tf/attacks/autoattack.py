"""Attacks by name, and AutoAttack (Croce and Hein, ICML 2020): a cascade that each still robust image goes through."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from awp_tf.attacks.apgd import APGD
from awp_tf.attacks.fab import FAB
from awp_tf.attacks.pgd import FGSM, PGD
from awp_tf.attacks.search import LastIterate, Search
from awp_tf.attacks.spsa import SPSA
from awp_tf.attacks.square import Square
from awp_tf.infra.errors import UserError, at_least, one_of
from awp_tf.threats import Threat

VERSIONS: Mapping[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "quick": ("apgd-ce", "apgd-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# Everything that can be asked for by name, and what it is; numbers in names are examples.
ATTACKS: Mapping[str, str] = {
    "standard": "AutoAttack: apgd-ce, apgd-t, fab-t, square",
    "quick": "its first two attacks, an upper bound",
    "rand": "its version for randomised networks",
    "apgd-ce": "APGD on the cross-entropy",
    "apgd-dlr": "APGD on the DLR loss",
    "apgd-t": "APGD on the DLR loss, towards the 9 likeliest wrong classes",
    "fab": "FAB, 5 restarts",
    "fab-t": "FAB, towards the 9 likeliest wrong classes",
    "square": "random search, 5,000 queries",
    "fgsm": "one step",
    "pgd-20": "PGD with 20 steps",
    "pgd-20x5": "PGD with 20 steps and 5 restarts",
    "cw-100": "PGD on the margin with 100 steps",
    "spsa": "gradients estimated from queries",
    "transfer": "PGD-20 crafted on another network",
}

_TARGETS = 9  # of the official code, which supposes at least 10 classes
_DLR_CLASSES = {"apgd-t": 4, "apgd-dlr": 3}  # as many logits as the loss takes
_EOT = 20  # gradients averaged in version rand

_QUICK = (
    "version quick leaves out FAB-T and Square: an upper bound on the standard robust accuracy (in the nine logs "
    "published with AWP they changed it by at most 0.02 points, at three times the cost)"
)


class Cascade(NamedTuple):
    """Searches that take turns on the images that are still robust.

    Attributes:
        searches: By name, in their order.
        remarks: In what the cascade is not the standard one.
        is_autoattack: Whether it is AutoAttack, as far as a network with these classes admits of it; what less leaves
            is an upper bound on robust accuracy.
    """

    searches: Mapping[str, Search]
    remarks: tuple[str, ...] = ()
    is_autoattack: bool = False


@dataclasses.dataclass(frozen=True)
class AutoAttack:
    """The ensemble whose robust accuracy RobustBench lists (Croce and Hein, ICML 2020).

    With K < 10 classes, K - 1 targets are tried; with K < 4 the targeted DLR loss is not defined, nor with K < 3 the
    other, and the margin takes its place. All this, and every other departure from the standard version, is remarked.

    Attributes:
        threat: The ball.
        version: "standard", "quick" (an upper bound), "rand" (for randomised networks), or "custom".
        attacks: The names of a custom version.
        iterations: Of APGD and FAB.
        queries: Of Square.

    Example:
        >>> from awp_tf.attacks import AutoAttack
        >>> from awp_tf.threats import Linf
        >>> list(AutoAttack(Linf("8/255")).cascade(classes=10).searches)
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """

    threat: Threat
    version: str = "standard"
    attacks: tuple[str, ...] = ()
    iterations: int = 100
    queries: int = 5000

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        one_of("AutoAttack.version", self.version, (*VERSIONS, "custom"))
        at_least("AutoAttack.iterations", self.iterations, 1)
        at_least("AutoAttack.queries", self.queries, 1)
        if (self.version == "custom") != bool(self.attacks):
            raise UserError("AutoAttack.attacks: expected names for version custom, and for no other.")
        for name in self.attacks:
            one_of("AutoAttack.attacks", name, self.attack_names)

    @property
    def attack_names(self) -> tuple[str, ...]:
        """Of which a custom version may be made."""
        return tuple(self._makers(10))

    def cascade(self, classes: int) -> Cascade:
        """The searches for a network with so many classes."""
        makers = self._makers(classes)
        names = self.attacks or VERSIONS[self.version]
        searches = {name: makers[name]() for name in names}
        return Cascade(searches, tuple(self._remarks(names, classes)), self._is_whole(names))

    def _is_whole(self, names: tuple[str, ...]) -> bool:
        standard = set(names) >= set(VERSIONS["standard"]) and self.queries >= 5000
        return self.iterations >= 100 and (standard or self.version == "rand")

    def _makers(self, classes: int) -> Mapping[str, Callable[[], Search]]:
        threat, n, targets = self.threat, self.iterations, min(_TARGETS, classes - 1)
        eot = _EOT if self.version == "rand" else 1
        loss = {name: "dlr" if classes >= least else "margin" for name, least in _DLR_CLASSES.items()}
        return {
            "apgd-ce": lambda: APGD(threat, "ce", n, eot=eot),
            "apgd-dlr": lambda: APGD(threat, loss["apgd-dlr"], n, eot=eot),
            "apgd-t": lambda: APGD(threat, f"targeted-{loss['apgd-t']}", n, targets=targets, eot=eot),
            "fab": lambda: FAB(threat, n, restarts=5, targets=0),
            "fab-t": lambda: FAB(threat, n, targets=targets),
            "square": lambda: Square(threat, self.queries),
        }

    def _remarks(self, names: tuple[str, ...], classes: int) -> list[str]:
        remarks = [_QUICK] if self.version == "quick" else []
        if self.version == "custom":
            remarks.append(f"a choice of attacks: {', '.join(names)}")
        if self.version == "rand":
            remarks.append("version rand, for randomised networks: gradients averaged over 20 passes")
        if classes <= _TARGETS and {"apgd-t", "fab-t"} & set(names):
            remarks.append(f"{classes} classes: {classes - 1} targets instead of {_TARGETS}")
        changed = [name for name, least in _DLR_CLASSES.items() if name in names and classes < least]
        if changed:
            remarks.append(f"{classes} classes: the margin instead of the DLR loss in {' and '.join(changed)}")
        if self.iterations != 100:
            remarks.append(f"{self.iterations} iterations instead of 100")
        if self.queries != 5000 and "square" in names:
            remarks.append(f"{self.queries} queries instead of 5000")
        return remarks


def cascade_of(name: str, threat: Threat, *, classes: int, relative_step_size: float = 0.25) -> Cascade:
    """The cascade a name stands for.

    Args:
        name: One of ATTACKS, with other numbers too; or several attacks of AutoAttack joined by "+".
        threat: The ball.
        classes: Of the network.
        relative_step_size: Of PGD and CW.

    Raises:
        UserError: There is no such attack; the nearest name is suggested.
    """
    if name.lower() == "autoattack":  # the nearest name by its letters would be quick, an upper bound
        raise UserError(f"attacks: expected a version of AutoAttack, received {name!r}. Did you mean 'standard'?")
    pgd = re.fullmatch(r"(pgd|cw)-(\d+)(?:x(\d+))?", name)
    if pgd:
        attack = PGD(threat, int(pgd[2]), relative_step_size)
        return Cascade({name: LastIterate(attack, {"pgd": "ce", "cw": "margin"}[pgd[1]], int(pgd[3] or 1))})
    if name in VERSIONS:
        return AutoAttack(threat, name).cascade(classes)
    simple: dict[str, Search] = {"fgsm": LastIterate(FGSM(threat)), "spsa": SPSA(threat)}
    if name in simple:
        return Cascade({name: simple[name]})
    parts = tuple(name.split("+"))
    single = AutoAttack(threat).attack_names
    for part in parts:
        one_of("attacks", part, single if len(parts) > 1 else ATTACKS)
    return AutoAttack(threat, "custom", parts).cascade(classes)
