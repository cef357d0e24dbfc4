"""What a run needs to go on exactly where it stopped."""

import dataclasses
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.files import atomic_write, without_wildcards

_NAME = re.compile(r"step-(\d+)\.index$")


@dataclasses.dataclass
class Progress(tf.train.experimental.PythonState):
    """Where work stands; goes into a checkpoint beside the weights. A subclass adds fields that JSON can hold.

    Attributes:
        step: Training steps taken; checkpoints are named after it.
    """

    step: int = 0

    def serialize(self) -> str:
        """All fields as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def deserialize(self, string_value: bytes) -> None:
        """The inverse of serialize."""
        for name, value in json.loads(string_value).items():
            setattr(self, name, value)


class Checkpoints:
    """The newest two states of a run, in a folder."""

    def __init__(self, folder: pathlib.Path, progress: Progress, *, minutes: Any = None, **objects: Any) -> None:
        """Keeps progress and objects (network, optimizer, ...) in folder; minutes (a float or None): see due."""
        self._folder = folder
        self._progress = progress
        self._minutes, self._saved = minutes, time.monotonic()
        self._checkpoint = tf.train.Checkpoint(progress=progress, **objects)

    @property
    def due(self) -> bool:
        """Whether the last save is so many minutes ago; None is never."""
        return self._minutes is not None and time.monotonic() - self._saved >= 60 * self._minutes

    def save(self) -> None:
        """Writes the present state; the index file comes last, so a half-written state has none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with without_wildcards(self._folder) as folder:
            self._checkpoint.write(str(folder / f"step-{self._progress.step}"))
        kept = {f"step-{step}" for step in self._steps()[:2]}
        for file in self._folder.glob("step-*"):
            if file.is_dir():  # TensorFlow was killed while it wrote there
                shutil.rmtree(file)
            elif file.name.split(".")[0] not in kept:
                file.unlink()
        self._saved = time.monotonic()

    def restore(self) -> bool:
        """Goes back to the newest readable state, and says so for each unreadable one.

        Returns:
            Whether there was a state.

        Raises:
            UserError: There are states, but none can be read. Some variables may hold their values
                by now, so this is no place to start over from.
        """
        steps = self._steps()
        for step in steps:
            path = str(self._folder / f"step-{step}")
            try:
                with without_wildcards(self._folder) as folder:
                    self._checkpoint.read(str(folder / f"step-{step}")).assert_consumed()
            except Exception as error:  # damaged files make TensorFlow raise errors of many kinds
                reason = first_line(error)
                print(
                    f"warning: {path} cannot be read ({reason}); looking for the checkpoint before it", file=sys.stderr
                )
            else:
                return True
        if steps:
            raise UserError(
                f"{self._folder}: expected a readable checkpoint, received {len(steps)} damaged ones; "
                "choose another folder, or delete this run's folder to start over."
            )
        return False

    def _steps(self) -> list[int]:
        """Steps with a complete checkpoint, newest first."""
        found = (_NAME.search(file.name) for file in self._folder.glob("step-*.index"))
        return sorted((int(match[1]) for match in found if match), reverse=True)


def noise_states(network: keras.Model) -> dict[str, list[keras.Variable]]:
    """What layers that draw noise, as Dropout does, count by: Keras leaves it out of weights and checkpoints.

    Nothing where there are none, so that checkpoints of such networks stay as they are.
    """
    weights = {id(variable) for variable in network.weights}
    states = [variable for variable in network.non_trainable_variables if id(variable) not in weights]
    return {"noise": states} if states else {}


def save_network(network: keras.Model, path: pathlib.Path) -> None:
    """Saves network as .keras; path holds either the old file or the new one, never half of it."""
    with atomic_write(path) as part:
        network.save(part)


def require_readable(network: keras.Model) -> None:
    """Raises UserError unless Keras can read a network back from a file: found out before it is trained, not after."""
    with tempfile.TemporaryDirectory() as place:
        file = pathlib.Path(place) / "network.keras"
        try:
            network.save(file)
            keras.models.load_model(file)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise UserError(
                f"{network.name}: expected a network that Keras reads back from a file ({first_line(error)}); register "
                "layers of your own by keras.saving.register_keras_serializable, and use no Lambda."
            ) from error
