"""What a study runs, and what it keeps of each run: small enough for a repository, enough for every figure."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from awp_tf.infra.errors import UserError, at_least, one_of
from awp_tf.infra.files import write_text


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a study.

    Attributes:
        label: Of the recipe, as in tables.
        seed: Of the run.
        settings: Gin files and bindings; later files change earlier ones, and bindings change files.
    """

    label: str
    seed: int
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its folder and record."""
        return f"{re.sub(r'[^a-z0-9.]+', '_', self.label.lower()).strip('_')}-seed{self.seed}"

    @property
    def files(self) -> list[str]:
        """The gin files among the settings."""
        return [setting for setting in self.settings if setting.endswith(".gin")]

    @property
    def bindings(self) -> list[str]:
        """The bindings among the settings, and that of the seed."""
        return [*(setting for setting in self.settings if not setting.endswith(".gin")), f"SEED={self.seed}"]


@dataclasses.dataclass(frozen=True)
class Study:
    """Recipes x seeds.

    Attributes:
        runs: For each label the gin files and bindings of its recipe.
        common: Gin files and bindings for all, after a recipe's own (a recipe's binding still changes a common file).
        seeds: Every recipe is run with each.
        checkpoints: The networks whose landscapes are drawn, by commas: last; and best, epochs.
        evaluate: The networks that are evaluated by the recipe's protocol, by commas: best, last; "" is none.
    """

    runs: Mapping[str, Sequence[str]]
    common: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    checkpoints: str = "best,last"
    evaluate: str = ""

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        if not isinstance(self.seeds, Sequence):
            raise UserError(f"Study.seeds: expected several, for instance (0, 1, 2), received {self.seeds!r}.")
        for seed in self.seeds:
            at_least("Study.seeds", seed, 0)
        for kind in self.checkpoints.split(","):
            one_of("Study.checkpoints", kind, ("best", "last", "epochs"))
        if "last" not in self.checkpoints.split(","):
            raise UserError(f"Study.checkpoints: expected last among them, received {self.checkpoints!r}.")
        for kind in self.evaluated:
            one_of("Study.evaluate", kind, ("best", "last"))
        names = [trial.name for trial in self.trials]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"Study: expected runs with different names and seeds, received {', '.join(names) or 'none'}."
            )

    @property
    def evaluated(self) -> list[str]:
        """The networks that are evaluated."""
        return [kind for kind in self.evaluate.split(",") if kind]

    @property
    def drawn(self) -> list[str]:
        """The networks of which each run has one, and whose landscapes are drawn."""
        return [kind for kind in self.checkpoints.split(",") if kind != "epochs"]

    @property
    def trials(self) -> list[Trial]:
        """All runs, seed by seed: a study that is stopped early has whole rounds."""
        return [Trial(label, seed, (*own, *self.common)) for seed in self.seeds for label, own in self.runs.items()]


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        label: Of its recipe.
        seed: Of the run.
        config_sha256: Of its resolved configuration.
        result: For "best" and "last" network: test_clean, test_robust, train_robust, robust_gap; in 0..1.
        history: What was measured after each epoch, on training and validation images.
        networks: What its landscape says of each network: see awp_tf.landscape.result.summary.
        seconds: By "train", "landscape", and "evaluate best" and the like.
        commit: Of the code, as the landscape was drawn.
        versions: Of what could change a number.
        evaluations: Accuracies in 0..1 on test images by network ("best") and attack, where it was evaluated.
    """

    label: str
    seed: int
    config_sha256: str
    result: Mapping[str, Mapping[str, float]]
    history: Sequence[Mapping[str, float]]
    networks: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]
    commit: str | None
    versions: Mapping[str, str]
    evaluations: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def sharpness(self, which: str, size: float) -> float:
        """g(size) - g(0) of the network called which ("best", "last", "epoch 10"), mean over directions."""
        network = next(network for network in self.networks if network["name"] == which)
        return float(network["sharpness"][f"{size:g}"][0])

    def different_networks(self) -> list[Mapping[str, Any]]:
        """Its networks, each once: the last one may also be that of a kept epoch."""
        found: dict[str, Mapping[str, Any]] = {}
        for network in self.networks:
            numbers = {name: value for name, value in network.items() if name not in ("name", "epoch")}
            found.setdefault(json.dumps(numbers, sort_keys=True), network)
        return list(found.values())


def config_digest(config: str) -> str:
    """By which a record knows the configuration of its run."""
    return hashlib.sha256(config.encode()).hexdigest()


def write_record(record: Record, path: pathlib.Path) -> None:
    """Writes it as JSON, whole or not at all."""
    write_text(path, json.dumps(dataclasses.asdict(record), indent=1) + "\n")


def read_records(folder: pathlib.Path, study: Study) -> dict[str, Record]:
    """The records of a study that are there, by name.

    Raises:
        UserError: One cannot be read.
    """
    found = {}
    for trial in study.trials:
        file = folder / f"{trial.name}.json"
        if file.exists():
            try:
                found[trial.name] = Record(**json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"{file}: expected the record of a run, which this is not ({error}); delete it to repeat the run."
                ) from error
    return found
