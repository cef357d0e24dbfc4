"""The folder of a run: it belongs to one configuration, and its result is written once."""

import contextlib
import dataclasses
import fcntl
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import is_part, write_text
from awp_tf.infra.tensorboard import Board, pictures

Result = dict[str, dict[str, float]]
Identity = Mapping[str, object]

_DATA = "data.json"


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
        # Perhaps left by a run that was killed at once: config.gin comes last of the first files.
        if all(file.name in (".lock", _DATA) or is_part(file) for file in files):
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
    def opened(self, hparams: Mapping[str, str | int | float], data: Identity) -> Iterator[None]:
        """Makes the folder, unless it is there already, and keeps other processes out of it.

        Args:
            hparams: For TensorBoard.
            data: What the run is trained on; see awp_tf.data.Source.identity.

        Raises:
            UserError: The folder cannot be written, another process trains in it, or it began with other data.
        """
        with locked(self.path):
            if self._config_file.exists():
                require_same_data(self.path, data)
            else:
                write_text(self.path / _DATA, json.dumps(data, indent=1) + "\n")
                write_text(self._config_file, self.config)
                with pictures("TensorBoard's page of the configuration"):
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


def require_same_data(path: pathlib.Path, data: Identity) -> None:
    """Compares data with those that a run began with; runs of older versions remember nothing.

    Args:
        path: The folder of the run.
        data: See awp_tf.data.Source.identity.

    Raises:
        UserError: They are others: images were added, classes renamed, another version was downloaded.
    """
    if not (path / _DATA).is_file():
        return
    trained: Identity = json.loads((path / _DATA).read_text(encoding="utf-8"))
    for name, there in trained.items():
        if data.get(name) != there:
            raise UserError(
                f"{path}: its data have changed since training began: {name} {there}, now {data.get(name)}; "
                "put them back, or train in another --workdir (--network and --data take a network to other data)."
            )


def epoch_file(folder: pathlib.Path, epoch: int) -> pathlib.Path:
    """The network after an epoch (from 1), where a run keeps it."""
    return folder / "epochs" / f"epoch-{epoch:04}.keras"


def kept_epochs(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The networks that a run kept, by epoch."""
    files = {file.stem.removeprefix("epoch-"): file for file in sorted((folder / "epochs").glob("epoch-*.keras"))}
    return {int(number): file for number, file in files.items() if number.isdecimal()}


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
        except BlockingIOError:
            raise UserError(f"{path}: another process is working in it; choose another --workdir.") from None
        except OSError as error:  # some network disks know no locks
            print(f"warning: {path} cannot be locked ({error.strerror}); see that no other process works in it.")
        yield
