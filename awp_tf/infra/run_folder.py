"""The folder of a run: it belongs to one configuration, and its result is written once."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.files import remove_parts, write_text
from awp_tf.infra.result_folder import Content, Fingerprint, ResultFolder, lock
from awp_tf.infra.tensorboard import Board, not_fatal

FinalTest = dict[str, dict[str, float]]
DataIdentity = Mapping[str, object]

Parts = Mapping[str, str]

HEADS = "heads.json"  # of a run of tasks that have classes of their own: which logits are whose
_CONFIG, _DATA, _PARTS = "config.gin", "data.json", "parts.json"
_LATE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class RunFolder(ResultFolder):
    """Where a run keeps config.gin, checkpoints, tensorboard, best.keras, last.keras and result.json."""

    _advice: ClassVar[str] = "delete this file, and the same command measures it again."
    # config.gin comes last of the first files.
    _leftovers: ClassVar[tuple[str, ...]] = (".lock", _DATA, _PARTS)

    @classmethod
    def of(cls, path: pathlib.Path, config: str, parts: Parts | None = None) -> Self:
        """The folder of a run; it need not exist.

        Args:
            path: The folder.
            config: The resolved configuration.
            parts: Of a person's own, modules that were imported for them: SHA-256 by module.
        """
        fingerprint = {"configuration": config, "import": _text(parts or {})}
        return cls(path, "result.json", "a run", fingerprint, tuple(fingerprint))

    @contextlib.contextmanager
    def begin(self, hparams: Mapping[str, str | int | float], data: DataIdentity) -> Iterator[None]:
        """Makes the folder, unless it is there already, and keeps other processes out of it.

        Args:
            hparams: For TensorBoard.
            data: What the run is trained on; see awp_tf.data.Source.identity.

        Raises:
            UserError: The folder cannot be written, another process trains in it, or it began with other data.
        """
        with lock(self.path):
            remove_parts(self.path / "checkpoints")
            if (self.path / _CONFIG).exists():
                require_same_data(self.path, data)
            else:
                self._write_first_files(hparams, data)
            yield

    def require_seen(self) -> None:
        """Raises UserError where another machine began the folder and it is not seen here, even a bit later."""
        deadline = time.monotonic() + _LATE_SECONDS
        while not (self.path / _CONFIG).exists():
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.path}: expected the chief's folder here, too; put it on a disk that all workers see."
                )
            time.sleep(0.2)

    def clear(self) -> None:
        """Keeps everything: checkpoints tell how training went."""

    def _write_first_files(self, hparams: Mapping[str, str | int | float], data: DataIdentity) -> None:
        config = self.fingerprint["configuration"]
        write_text(self.path / _DATA, json.dumps(data, indent=1) + "\n")
        (self.path / _PARTS).unlink(missing_ok=True)  # perhaps of a start that was killed at once
        if self.fingerprint["import"]:
            write_text(self.path / _PARTS, self.fingerprint["import"])
        write_text(self.path / _CONFIG, config)
        with not_fatal("TensorBoard's page of the configuration"):
            board = Board(self.path / "tensorboard")
            board.text("config", "\n".join(f"    {line}" for line in config.splitlines()))
            board.hparams(hparams)

    def _fingerprint_there(self, content: Content | None) -> Fingerprint | None:
        file = self.path / _CONFIG
        if not file.is_file():
            return None
        kept = self.path / _PARTS
        # Versions before that file kept nothing of it; what an unused part may have been does not matter.
        parts = _text_of(kept) if kept.is_file() else self.fingerprint["import"]
        return {"configuration": _text_of(file), "import": parts}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a folder of a run holds.

    Attributes:
        path: The folder.
        config: Its resolved configuration.
        result: For "best" and "last" the accuracies of the final test and the robust gap; None while unfinished.
        history: What was measured after each epoch.
    """

    path: pathlib.Path
    config: str
    result: FinalTest | None
    history: Sequence[Mapping[str, float]]


def read_run(path: pathlib.Path, *, finished: bool = True) -> Run:
    """Reads a run.

    Args:
        path: Its folder.
        finished: Whether it has to be finished.

    Raises:
        UserError: It is none, or not finished.
    """
    for name, what in ((_CONFIG, "a run"), ("result.json", "a finished run"))[: 1 + finished]:
        if not (path / name).is_file():
            raise UserError(f"expected the folder of {what} (with {name}), received {str(path)!r}.")
    read = {name: path / f"{name}.json" for name in ("result", "history")}
    values = {name: _json_of(file) for name, file in read.items() if file.is_file()}
    return Run(path, _text_of(path / _CONFIG), values.get("result"), values.get("history", []))


def parts_of(path: pathlib.Path) -> Parts:
    """The parts of a person's own that a run was trained with: SHA-256 by module; runs of older versions keep none."""
    file = path / _PARTS
    kept: Parts = _json_of(file) if file.is_file() else {}
    return kept


def _text_of(file: pathlib.Path) -> str:
    """What a damaged disk made of a file is another text, and is refused as such."""
    return file.read_text(encoding="utf-8", errors="replace")


def _json_of(file: pathlib.Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file}: expected JSON, which this is not any more ({first_line(error)}); put back a copy, or train in "
            "another folder."
        ) from error


def _text(parts: Parts) -> str:
    return json.dumps(dict(sorted(parts.items())), indent=1) + "\n" if parts else ""


def trained_on(path: pathlib.Path) -> DataIdentity:
    """What a run remembers of its data; see awp_tf.data.Source.identity. Runs of older versions: nothing."""
    file = path / _DATA
    kept: DataIdentity = _json_of(file) if file.is_file() else {}
    return kept


def require_same_data(path: pathlib.Path, data: DataIdentity) -> None:
    """Compares data with those that a run began with, as far as both are known.

    Runs of older versions remember nothing; what comes after training neither needs nor reads extra images.

    Args:
        path: The folder of the run.
        data: See awp_tf.data.Source.identity.

    Raises:
        UserError: They are others: images were added, classes renamed, another version was downloaded.
    """
    for name, there in trained_on(path).items():
        if name in data and data[name] != there:
            raise UserError(
                f"{path}: its data have changed since training began: {name} {there}, now {data[name]}; "
                "put them back, or train in another folder; a network itself may be taken to any data."
            )


def epoch_file(folder: pathlib.Path, epoch: int) -> pathlib.Path:
    """The network after an epoch (from 1), where a run keeps it."""
    return folder / "epochs" / f"epoch-{epoch:04}.keras"


def kept_epochs(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The networks that a run kept, by epoch."""
    files = {file.stem.removeprefix("epoch-"): file for file in sorted((folder / "epochs").glob("epoch-*.keras"))}
    return {int(number): file for number, file in files.items() if number.isdecimal()}
