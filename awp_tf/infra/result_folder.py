"""A folder that holds one result, finished or on its way: nothing is mixed up, nothing overwritten."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.training.run import locked

Content = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class OutputFolder:
    """Where an evaluation or a landscape goes.

    Attributes:
        path: New, empty, or of the same work.
        file: The result's name, JSON with a field "fingerprint"; it is written last and means: finished.
        what: What the result is, for messages: "an evaluation".
        fingerprint: What unfinished work must agree in to be gone on with, by name.
        lasting: The names of those in which a finished result must agree, too, to be taken as it is.
    """

    path: pathlib.Path
    file: str
    what: str
    fingerprint: Mapping[str, str]
    lasting: tuple[str, ...]

    @property
    def state(self) -> pathlib.Path:
        """The folder of what is needed to go on; it is gone when the work is finished."""
        return self.path / "state"

    def finished(self) -> Content | None:
        """The finished result; None where there is none yet.

        Raises:
            UserError: The folder is another's; nothing has been written.
        """
        if (self.path / self.file).is_file():
            content = self._read(self.path / self.file)
            self._require_same(content.get("fingerprint", {}), self.lasting)
            return content
        begun = self.state / "fingerprint.json"
        if begun.is_file():
            self._require_same(self._read(begun), tuple(self.fingerprint))
        elif self.path.exists() and self._strangers():
            raise UserError(
                f"{self.path}: expected a new or empty folder, or {self.what} to go on with; choose another."
            )
        return None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder and its state, and keeps other processes out.

        Raises:
            UserError: It cannot be written, or another process works in it.
        """
        with locked(self.path):
            self.state.mkdir(exist_ok=True)
            write_text(self.state / "fingerprint.json", json.dumps(dict(self.fingerprint)))
            yield

    def finish(self, content: Content) -> None:
        """Writes the result; nothing else is needed from here on."""
        write_text(self.path / self.file, json.dumps(content, indent=2) + "\n")
        self.clear()

    def clear(self) -> None:
        """Removes the state; it may be left over where only its removal was interrupted."""
        shutil.rmtree(self.state, ignore_errors=True)

    def _strangers(self) -> bool:
        return not self.path.is_dir() or bool({file.name for file in self.path.iterdir()} - {".lock", "state"})

    def _read(self, file: pathlib.Path) -> Content:
        try:
            content: Content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{file}: expected {self.what}, which this is not ({error}); choose another folder."
            ) from error
        return content

    def _require_same(self, there: Mapping[str, str], names: tuple[str, ...]) -> None:
        for name in names:
            here = self.fingerprint[name]
            if there.get(name) != here:
                raise UserError(
                    f"{self.path}: holds {self.what} of another {name} (there: {there.get(name)}; here: {here}); "
                    "choose another folder, or delete that one."
                )
