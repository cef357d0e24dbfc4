"""What a study keeps of a run: small enough for a repository, enough for every table and figure."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.study.plan import Study, Trial


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
        seconds: By "train", "landscape".
        commit: Of the code, as the landscape was drawn.
        versions: Of what could change a number.
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


def record_of(trial: Trial, run: pathlib.Path, seconds: Mapping[str, float]) -> Record:
    """The record of a run whose training and landscape are finished."""
    files = {name: run / name for name in ("result.json", "history.json", "landscape/landscape.json")}
    result, history, landscape = (json.loads(file.read_text(encoding="utf-8")) for file in files.values())
    return Record(
        label=trial.label,
        seed=trial.seed,
        config_sha256=_config_digest(run),
        result=result,
        history=history,
        networks=landscape["networks"],
        seconds={name: round(value, 1) for name, value in seconds.items()},
        commit=landscape["commit"],
        versions=landscape["versions"],
    )


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


def _config_digest(run: pathlib.Path) -> str:
    return hashlib.sha256((run / "config.gin").read_bytes()).hexdigest()
