"""Which run fooled which image: the state that makes an evaluation resumable, and the numbers that come of it."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from awp_tf.attacks import Search
from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.splits import Split
from awp_tf.evaluation.accuracy import robust_gap
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import read_arrays, write_arrays

ROBUST, CLEAN_ERROR = -1, -2


class AttackRun(NamedTuple):
    """One pass of a search: towards the class of one rank, with one restart."""

    attack: str
    search: Search
    target: int
    restart: int


def runs_of(cascade: Cascade) -> list[AttackRun]:
    """What a cascade does, in order: attacks, then target ranks (1 is the likeliest wrong class), then restarts."""
    return [
        AttackRun(attack, search, target, restart)
        for attack, search in cascade.searches.items()
        for target, restart in itertools.product(range(1, max(search.targets, 1) + 1), range(search.restarts))
    ]


@dataclasses.dataclass
class EvaluationState:
    """The state of the evaluation of one split.

    Attributes:
        ranking: For each image its classes by falling clean logit, the likeliest few; [N, R].
        fooled_by: For each cascade and image the run of the cascade that fooled it, ROBUST or
            CLEAN_ERROR; [cascades, N].
        cascade, run, position: Where it goes on: which cascade, which of its runs, and how many of the
            images that this run began with are done.
        clean: How many images the clean pass has looked at.
        seconds: Spent, by "cascade/attack".
        rejected: Whether an image was claimed to be fooled and did not stand the verification;
            [cascades, N].
    """

    ranking: np.ndarray
    fooled_by: np.ndarray
    cascade: int = 0
    run: int = 0
    position: int = 0
    clean: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    rejected: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        """Nothing is rejected yet, unless given."""
        if self.rejected.shape != self.fooled_by.shape:
            self.rejected = np.zeros(self.fooled_by.shape, bool)

    def add_seconds(self, clock: str, seconds: float) -> None:
        """Adds to the time kept under a name."""
        self.seconds[clock] = self.seconds.get(clock, 0.0) + seconds

    def take_over(self, other: "EvaluationState", places: np.ndarray) -> None:
        """What another state has found of the images at places."""
        self.ranking[places] = other.ranking[places]
        self.fooled_by[:, places] = other.fooled_by[:, places]
        self.rejected[:, places] = other.rejected[:, places]
        for clock, seconds in other.seconds.items():
            self.add_seconds(clock, seconds)

    def pending(self) -> np.ndarray:
        """The images that the present run began with: robust now, or fooled by this very run."""
        fooled_by = self.fooled_by[self.cascade]
        return np.flatnonzero((fooled_by == ROBUST) | (fooled_by == self.run))

    def save(self, path: pathlib.Path) -> None:
        """Writes it; path holds either the old state or the new one, never half of it."""
        place = {name: getattr(self, name) for name in ("cascade", "run", "position", "clean", "seconds")}
        arrays = {name: getattr(self, name) for name in ("ranking", "fooled_by", "rejected")}
        write_arrays(path, {"place": np.array(json.dumps(place)), **arrays})

    @classmethod
    def load(cls, path: pathlib.Path) -> "EvaluationState | None":
        """The state in path; None where there is none.

        Raises:
            UserError: It cannot be read.
        """
        data = read_arrays(path, "the state of an evaluation")
        if data is None:
            return None
        try:
            place = json.loads(str(data["place"]))
            return cls(data["ranking"], data["fooled_by"], rejected=data["rejected"], **place)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}: expected the state of an evaluation, which this is not ({error}); "
                "delete its folder to start over, or choose another."
            ) from error


@dataclasses.dataclass(frozen=True)
class SplitResult:
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


def result_of(state: EvaluationState, split: Split, cascades: Mapping[str, Cascade]) -> SplitResult:
    """The result of a finished evaluation."""
    after, robust = {}, {}
    for (name, cascade), fooled_by in zip(cascades.items(), state.fooled_by, strict=True):
        runs = runs_of(cascade)
        for attack in cascade.searches:
            last = max(number for number, run in enumerate(runs) if run.attack == attack)
            after[f"{name}/{attack}"] = (fooled_by != CLEAN_ERROR) & ((fooled_by == ROBUST) | (fooled_by > last))
        robust[name] = fooled_by == ROBUST
    return SplitResult(split.labels, state.ranking[:, 0], after, robust, dict(state.seconds))


def gaps(parts: Mapping[str, SplitResult]) -> dict[str, float]:
    """The robust generalisation gap under each cascade; empty unless both splits were evaluated."""
    if set(parts) != {"test", "train"}:
        return {}
    train, test = parts["train"].accuracies(), parts["test"].accuracies()
    return {name: robust_gap(train[name], test[name]) for name in ("clean", *parts["test"].robust, "worst case")}
