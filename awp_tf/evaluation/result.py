"""The numbers of an evaluation, from its ledgers."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.sources import Split
from awp_tf.evaluation.accuracy import robust_gap
from awp_tf.evaluation.attack_pass import runs_of
from awp_tf.evaluation.state import CLEAN_ERROR, ROBUST, Ledger


@dataclasses.dataclass(frozen=True)
class PartResult:
    """One split.

    Attributes:
        labels: True classes, [N].
        predictions: Classes given to the clean images, [N].
        after: Whether an image is still robust after each attack, by "cascade/attack", [N]; wrongly
            classified images never are.
        robust: The same by cascade.
        seconds: By "cascade/attack".
    """

    labels: np.ndarray
    predictions: np.ndarray
    after: Mapping[str, np.ndarray]
    robust: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]

    def fooled(self, name: str) -> np.ndarray:
        """Which images a cascade fooled, [N]."""
        return self.correct & ~self.robust[name]

    @property
    def correct(self) -> np.ndarray:
        """Which clean images are classified correctly, [N]."""
        return self.labels == self.predictions

    @property
    def worst(self) -> np.ndarray:
        """Which images no attack fooled: the worst case of each image, [N]."""
        return np.all(list(self.robust.values()), axis=0)

    def accuracies(self) -> dict[str, float]:
        """In 0..1: "clean", each "cascade/attack", each cascade, and "worst case"."""
        flags = {"clean": self.correct}
        for name, robust in self.robust.items():
            flags |= {key: flag for key, flag in self.after.items() if key.startswith(f"{name}/")}
            flags[name] = robust
        return {name: float(flag.mean()) for name, flag in {**flags, "worst case": self.worst}.items()}

    def per_class(self, classes: int) -> dict[str, list[float | None]]:
        """Clean and robust (worst case) accuracy of each class; None for a class without images."""
        members = [self.labels == k for k in range(classes)]
        return {
            name: [float(flag[of].mean()) if of.any() else None for of in members]
            for name, flag in (("clean", self.correct), ("robust", self.worst))
        }

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """What evaluation.npz holds."""
        named = {"label": self.labels, "clean_prediction": self.predictions, "robust": self.worst}
        named |= {f"robust_after/{name}": flags for name, flags in self.after.items()}
        return {prefix + name: value for name, value in named.items()}


def of_ledger(ledger: Ledger, split: Split, cascades: Mapping[str, Cascade]) -> PartResult:
    """The result of a finished evaluation."""
    after, robust = {}, {}
    for (name, cascade), fell in zip(cascades.items(), ledger.fell, strict=True):
        runs = runs_of(cascade)
        for attack in cascade.searches:
            last = max(number for number, run in enumerate(runs) if run.attack == attack)
            after[f"{name}/{attack}"] = (fell != CLEAN_ERROR) & ((fell == ROBUST) | (fell > last))
        robust[name] = fell == ROBUST
    return PartResult(split.labels, ledger.ranking[:, 0], after, robust, dict(ledger.seconds))


def gaps(parts: Mapping[str, PartResult]) -> dict[str, float]:
    """The robust generalisation gap under each cascade; empty unless both splits were evaluated."""
    if set(parts) != {"test", "train"}:
        return {}
    train, test = parts["train"].accuracies(), parts["test"].accuracies()
    return {name: robust_gap(train[name], test[name]) for name in ("clean", *parts["test"].robust, "worst case")}
