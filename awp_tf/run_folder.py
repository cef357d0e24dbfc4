"""The folder of a run: it belongs to one configuration, and its result is written once."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping

from awp_tf.board import Board
from awp_tf.checks import UserError
from awp_tf.files import write_text

Result = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where a run keeps config.gin, checkpoints, tensorboard, best.keras, last.keras and result.json.

    Attributes:
        path: The folder; it need not exist.
        config: The resolved configuration of the run.
    """

    path: pathlib.Path
    config: str

    def __post_init__(self) -> None:
        """Raises UserError where the folder is another's."""
        files = self.path.iterdir() if self.path.is_dir() else [self.path] if self.path.exists() else []
        if all(file.name == ".lock" for file in files):  # perhaps left by a run that was killed at once
            return
        if not self._config_file.is_file():
            raise UserError(f"{self.path}: expected a new or empty folder or one of a run; choose another --workdir.")
        saved = self._config_file.read_text(encoding="utf-8")
        if saved != self.config:
            pairs = itertools.zip_longest(saved.splitlines(), self.config.splitlines(), fillvalue="(nothing)")
            there, here = next(((a, b) for a, b in pairs if a != b), ("", ""))
            raise UserError(
                f"{self.path}: holds a run with another configuration (there: {there!r}, here: {here!r}); "
                "choose another --workdir, or delete that folder."
            )

    @contextlib.contextmanager
    def opened(self, hparams: Mapping[str, str | int | float]) -> Iterator[None]:
        """Makes the folder, unless it is there already, and keeps other processes out of it.

        Raises:
            UserError: The folder cannot be written, or another process trains in it.
        """
        with locked(self.path):
            if not self._config_file.exists():
                write_text(self._config_file, self.config)
                board = Board(self.path / "tensorboard")
                board.text("config", "\n".join(f"    {line}" for line in self.config.splitlines()))
                board.hparams(hparams)
            yield

    def result(self) -> Result | None:
        """What a finished run measured; None while it is not finished."""
        if not self._result_file.is_file():
            return None
        result: Result = json.loads(self._result_file.read_text(encoding="utf-8"))
        return result

    def finish(self, result: Result) -> None:
        """Writes the result; from here on the run is finished."""
        write_text(self._result_file, json.dumps(result, indent=2) + "\n")

    @property
    def _config_file(self) -> pathlib.Path:
        return self.path / "config.gin"

    @property
    def _result_file(self) -> pathlib.Path:
        return self.path / "result.json"


def epoch_file(folder: pathlib.Path, epoch: int) -> pathlib.Path:
    """The network after an epoch (from 1), where a run keeps it."""
    return folder / "epochs" / f"epoch-{epoch:04}.keras"


def kept_epochs(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The networks that a run kept, by epoch."""
    files = sorted((folder / "epochs").glob("epoch-*.keras"))
    return {int(file.stem.removeprefix("epoch-")): file for file in files}


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Makes a folder, unless it is there already, and keeps other processes out of it.

    Raises:
        UserError: The folder cannot be written, or another process works in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another --workdir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path}: another process is working in it; choose another --workdir.") from None
        yield
