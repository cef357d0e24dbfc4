"""What a run writes to its folder while it trains. Of several workers the chief writes; the others only read."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from awp_tf.infra.checkpoints import Checkpoints, noise_states, save_network
from awp_tf.infra.files import is_whole_zip, write_text
from awp_tf.infra.run_folder import epoch_file
from awp_tf.infra.tensorboard import Board, not_fatal
from awp_tf.trainer import RobustTrainer
from awp_tf.training.state import TrainingState


class Records:
    """Checkpoints, networks, history and TensorBoard of a run."""

    def __init__(
        self, folder: pathlib.Path, trainer: RobustTrainer, progress: TrainingState, minutes: float | None
    ) -> None:
        """Nothing is written yet; minutes: see Checkpoints.due."""
        self._folder, self._trainer, self._progress = folder, trainer, progress
        self._board: Board | None = None
        self._checkpoints = Checkpoints(
            folder / "checkpoints",
            progress,
            minutes=minutes,
            network=trainer.network,
            averaged=trainer.averaged_network,
            optimizer=trainer.optimizer,
            **noise_states(trainer.network),
        )

    @property
    def due(self) -> bool:
        """See Checkpoints."""
        return self._checkpoints.due

    def restore(self) -> bool:
        """See Checkpoints."""
        return self._checkpoints.restore()

    def begin(self) -> None:
        """Curves go on from here; what a killed process wrote later is about to be measured again."""
        self._board = Board(self._folder / "tensorboard", steps=self._progress.step)

    def mend(self, *, trained: bool) -> None:
        """Writes again what the checkpoint knows, where a damaged disk lost it: the history, and the last network."""
        if self._progress.history:
            self.history()
        if trained and not is_whole_zip(self._folder / "last.keras"):
            self.keep("last")

    def save(self) -> None:
        """Writes a checkpoint."""
        self._checkpoints.save()

    def keep(self, name: str) -> None:
        """Saves the network as name.keras."""
        save_network(self._trainer.averaged.network, self._folder / f"{name}.keras")

    def keep_epoch(self, epoch: int) -> None:
        """Saves the network of an epoch (from 1)."""
        kept = epoch_file(self._folder, epoch)
        kept.parent.mkdir(exist_ok=True)
        save_network(self._trainer.averaged.network, kept)

    def history(self) -> None:
        """Writes what was measured so far."""
        write_text(self._folder / "history.json", json.dumps(self._progress.history, indent=1) + "\n")

    def scalars(self, values: Mapping[str, float]) -> None:
        """One point of each curve, at the present step."""
        self.show("curves", lambda board, step: board.scalars(step, values))

    def show(self, what: str, draw: Callable[[Board, int], None]) -> None:
        """Adds to TensorBoard."""
        with not_fatal(f"TensorBoard's {what} of step {self._progress.step}"):
            if self._board is not None:
                draw(self._board, self._progress.step)


class NoRecords(Records):
    """Of the workers that are not the chief."""

    @property
    def due(self) -> bool:
        """Never: the chief's clock counts."""
        return False

    def begin(self) -> None:
        """Does nothing."""

    save = history = begin

    def mend(self, *, trained: bool) -> None:
        """Does nothing."""

    def keep(self, name: str) -> None:
        """Does nothing."""

    def keep_epoch(self, epoch: int) -> None:
        """Does nothing."""

    def show(self, what: str, draw: Callable[[Any, int], None]) -> None:
        """Does nothing."""
