"""A folder that holds one result, finished or on its way: nothing is mixed up, nothing overwritten."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import filelock

from awp_tf.infra.errors import UserError, first_difference
from awp_tf.infra.files import is_part, remove_parts, write_text

Content = dict[str, Any]
Fingerprint = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class ResultFolder:
    """Where an evaluation or a landscape goes; a run's folder is one, too.

    Attributes:
        path: New, empty, or of the same work.
        file: The result's name, JSON; it is written last and means: finished.
        what: What the result is, for messages: "an evaluation".
        fingerprint: What unfinished work must agree in to be gone on with, by name.
        lasting: The names of those in which a finished result must agree, too, to be taken as it is.
    """

    path: pathlib.Path
    file: str
    what: str
    fingerprint: Fingerprint
    lasting: tuple[str, ...]

    _advice: ClassVar[str] = "choose another folder."
    # What a process that was killed at once may leave; folders of these names are still new.
    _leftovers: ClassVar[tuple[str, ...]] = (".lock", "state")

    @property
    def state(self) -> pathlib.Path:
        """The folder of what is needed to go on; it is gone when the work is finished."""
        return self.path / "state"

    def finished(self) -> Content | None:
        """The finished result; None where there is none yet.

        Raises:
            UserError: The folder is another's; nothing has been written.
        """
        file = self.path / self.file
        content = self._read(file) if file.is_file() else None
        there = self._fingerprint_there(content)
        if there is not None:
            self._require_same(there, tuple(self.fingerprint) if content is None else self.lasting)
        elif self._holds_others():
            raise UserError(
                f"{self.path}: expected a new or empty folder, or {self.what} to go on with; choose another."
            )
        return content

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Makes the folder and its state, and keeps other processes out.

        Raises:
            UserError: It cannot be written, or another process works in it.
        """
        with self.alone():
            self.claim()
            yield

    def alone(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Makes the folder and keeps other processes out, or waits so many seconds for them; see open."""
        return lock(self.path, wait)

    def claim(self) -> None:
        """Says whose the folder is from now on; to be called where it is locked."""
        self.state.mkdir(exist_ok=True)
        write_text(self.state / "fingerprint.json", json.dumps(dict(self.fingerprint)))

    def finish(self, content: Content) -> None:
        """Writes the result; nothing else is needed from here on."""
        write_text(self.path / self.file, json.dumps(content, indent=2) + "\n")
        self.clear()

    def clear(self) -> None:
        """Removes the state; it may be left over where only its removal was interrupted."""
        shutil.rmtree(self.state, ignore_errors=True)

    def _fingerprint_there(self, content: Content | None) -> Fingerprint | None:
        """That of the result or the unfinished work in the folder; None where there is neither."""
        if content is not None:
            there: Fingerprint = content.get("fingerprint", {})
            return there
        file = self.state / "fingerprint.json"
        return self._read(file) if file.is_file() else None

    def _holds_others(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        return not all(file.name in self._leftovers or is_part(file) for file in self.path.iterdir())

    def _read(self, file: pathlib.Path) -> Content:
        try:
            content: Content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: expected {self.what}, which this is not ({error}); {self._advice}") from error
        return content

    def _require_same(self, there: Fingerprint, names: tuple[str, ...]) -> None:
        for name in names:
            if there.get(name) != self.fingerprint[name]:
                before, now = first_difference(there.get(name) or "", self.fingerprint[name])
                raise UserError(
                    f"{self.path}: holds {self.what} of another {name} (there: {before}; here: {now}); "
                    "choose another folder, or delete that one."
                )


@contextlib.contextmanager
def lock(path: pathlib.Path, wait: float = 0.0) -> Iterator[None]:
    """Makes a folder, unless it is there already, keeps other processes out of it, and removes what killed ones left.

    Args:
        path: The folder; of those within it nothing is removed.
        wait: Seconds after which one that is in it is in the way.

    Raises:
        UserError: The folder cannot be written, or another process works in it.
    """
    file = path / ".lock"
    try:
        path.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another folder.") from error
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(filelock.FileLock(file, timeout=wait, fallback_to_soft=False))
        except filelock.Timeout:
            raise UserError(f"{path}: another process is working in it; choose another folder.") from None
        except (OSError, NotImplementedError) as error:  # some network disks know no locks
            print(f"warning: {path} cannot be locked ({error}); see that no other process works in it.")
        else:
            remove_parts(path)
        yield
