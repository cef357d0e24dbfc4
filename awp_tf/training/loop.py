"""Runs training steps under a tf.distribute strategy: epochs, validation, logs, exact resume."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf.data.batches import Batches
from awp_tf.examples import plainly
from awp_tf.infra.checkpoints import Checkpoints, noise_states, save_network
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.progress import Console, Pace, duration
from awp_tf.infra.run_folder import epoch_file
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.infra.tensorboard import Board, not_fatal
from awp_tf.trainer import RobustTrainer
from awp_tf.training.collapse import collapse
from awp_tf.training.state import TrainingState

# Fetching logs waits for the device, so it is done for this many steps at a time.
_STEPS_PER_FETCH = 20

Validate = Callable[[Callable[[int], None]], dict[str, float]]


class Loop:
    """Trains to the end from wherever the folder's newest checkpoint stands.

    Attributes:
        progress: Where the run stands.
    """

    def __init__(
        self,
        trainer: RobustTrainer,
        batches: Batches,
        validate: Validate,
        *,
        epochs: int,
        folder: pathlib.Path,
        best_by: str = "robust",
        validate_every: int = 1,
        patience: int | None = None,
        keep_every: int | None = None,
        checkpoint_minutes: float | None = None,
        after_epoch: Callable[[Board, int], None] = lambda board, step: None,
    ) -> None:
        """Prepares a run; call it inside the scope of the strategy that created trainer.

        Args:
            trainer: Compiled.
            batches: Training batches.
            validate: Measures trainer.averaged.network: "train/..." and "validation/..." accuracies
                ("clean", "robust"); calls its argument after every batch.
            epochs: How long.
            folder: Where checkpoints, best.keras, last.keras and tensorboard/ go.
            best_by: Which validation accuracy decides, "robust" or "clean"; of equals the one with the better clean.
            validate_every: Measure after every so many epochs, and after the last.
            patience: Stop after this many epochs without a better network.
            keep_every: Also keep the network of every so many epochs, in epochs/.
            checkpoint_minutes: Also save the state in the middle of epochs that take longer.
            after_epoch: Adds to TensorBoard after each epoch.
        """
        self._trainer, self._batches, self._validate = trainer, batches, validate
        self._epochs, self._folder, self._patience = epochs, folder, patience
        self._best_by, self._validate_every, self._keep_every = best_by, validate_every, keep_every
        self._after_epoch = after_epoch
        self._strategy = tf.distribute.get_strategy()
        self._pending: list[dict[str, tf.Tensor]] = []
        self.progress = TrainingState()
        self._checkpoints = Checkpoints(
            folder / "checkpoints",
            self.progress,
            minutes=checkpoint_minutes,
            network=trainer.network,
            averaged=trainer.averaged_network,
            optimizer=trainer.optimizer,
            **noise_states(trainer.network),
        )

    def run(self) -> None:
        """Trains; returns when all epochs are over or early stopping says so.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state has been saved.
            UserError: The loss became NaN or infinite; the last good checkpoint is kept.
        """
        resumed = self._checkpoints.restore()
        # What a killed process wrote after its last checkpoint is about to be measured again.
        self._board = Board(self._folder / "tensorboard", steps=self.progress.step)
        done = self._batches.images_before(self.progress.step)
        self._console = Console("training", self._images(self._epochs), done)
        self._all, self._training = (Pace(self._images(self._epochs), done) for _ in range(2))
        if resumed:
            self._console.line(f"going on from epoch {self.progress.epoch}, step {self.progress.step}")
        with Interrupt() as interrupt, plainly():
            try:
                self._run_epochs(interrupt)
            except Interrupted:
                self._save()
                raise
            finally:
                self._console.close()

    def _run_epochs(self, interrupt: Interrupt) -> None:
        per_epoch = self._batches.steps_per_epoch
        data = self._distributed_data()
        # The signature leaves the batch size open: one trace serves the last, smaller batch too.
        train_step = tf.function(self._distributed_step, input_signature=[data.element_spec], autograph=False)
        stream = iter(data)
        while self.progress.epoch < self._epochs and not self.progress.stopped:
            while self.progress.step < (self.progress.epoch + 1) * per_epoch:
                self._note(train_step(next(stream)))
                interrupt.check()
                if self._checkpoints.due:
                    self._save()
            self._fetch()
            self._training.pause()
            self._trainer.averaged.refresh(self._trained_on(interrupt), self.progress.epoch + 1)
            self._finish_epoch(self._measure(interrupt))
            self._training.resume()

    def _distributed_data(self) -> Any:
        data = self._batches.dataset(self.progress.step, self._epochs * self._batches.steps_per_epoch)
        return self._strategy.experimental_distribute_dataset(data)

    def _trained_on(self, interrupt: Interrupt) -> Iterator[Sequence[tf.Tensor]]:
        """The batches of the epoch that is over, once more; nothing is read before the first is asked for."""
        step = self.progress.step
        for batch in self._batches.dataset(step - self._batches.steps_per_epoch, step):
            interrupt.check()
            yield batch

    def _save(self) -> None:
        """The state as it is, the logs of all steps so far included."""
        self._fetch()
        self._checkpoints.save()

    def _note(self, logs: dict[str, tf.Tensor]) -> None:
        self._pending.append(logs)
        self.progress.step += 1
        if len(self._pending) >= _STEPS_PER_FETCH:
            self._fetch()

    def _distributed_step(self, batch: Any) -> dict[str, tf.Tensor]:
        logs = self._strategy.run(self._trainer.train_step, args=(batch,))
        return {name: self._strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    def _fetch(self) -> None:
        """Brings the logs of the last steps to the host and adds them up."""
        if not self._pending:
            return
        logs = [{name: float(value) for name, value in step.items()} for step in self._pending]
        first = self.progress.step - len(logs)
        self._pending = []
        for step, values in enumerate(logs, start=first):
            self._refuse_non_finite(step, values["loss"])
            for name, value in {**values, "steps": 1.0}.items():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        images = self._batches.images_before(self.progress.step) - self._batches.images_before(first)
        self._all.advance(images)
        speed = self._training.advance(images)
        self._console.advance(images)
        self._console.note(loss=f"{logs[-1]['loss']:.4f}")
        rate = float(keras.ops.convert_to_numpy(self._trainer.optimizer.learning_rate))
        means = {name: float(np.mean([values[name] for values in logs])) for name in logs[0]}
        means["train/loss"] = means.pop("loss")
        with not_fatal("TensorBoard's curves of these steps"):
            self._board.scalars(self.progress.step, {**means, "learning_rate": rate, "speed/images_per_second": speed})

    def _refuse_non_finite(self, step: int, loss: float) -> None:
        if not np.isfinite(loss):
            raise UserError(
                f"step {step}: the loss is {loss}; expected a finite number. Checkpoints of earlier epochs "
                f"are kept in {self._folder / 'checkpoints'}; try a smaller LEARNING_RATE or gamma in a new folder."
            )

    def _measure(self, interrupt: Interrupt) -> dict[str, float]:
        """Accuracies of the network as it stands, where they are due."""
        epoch = self.progress.epoch + 1
        if epoch % self._validate_every and epoch != self._epochs:
            return {}
        return self._validate(lambda images: interrupt.check())

    def _finish_epoch(self, values: dict[str, float]) -> None:
        """Logs, keeps the best network, saves the state."""
        progress, epoch, measured = self.progress, self.progress.epoch + 1, bool(values)
        values["train/epoch_loss"] = progress.sums["loss"] / progress.sums["steps"]
        warning = collapse(progress.history, values) if self._best_by == "robust" else None
        progress.sums, progress.epoch = {}, epoch
        better = measured and self._is_best(values)
        if better:
            progress.best_epoch = epoch
            save_network(self._trainer.averaged.network, self._folder / "best.keras")
        if self._patience is not None and measured:
            progress.stopped = epoch - progress.best_epoch >= self._patience
        if epoch == self._epochs or progress.stopped:
            save_network(self._trainer.averaged.network, self._folder / "last.keras")
        if self._keep_every is not None and epoch % self._keep_every == 0:
            kept = epoch_file(self._folder, epoch)
            kept.parent.mkdir(exist_ok=True)
            save_network(self._trainer.averaged.network, kept)
        progress.history.append({"epoch": epoch, "step": progress.step, **values})
        write_text(self._folder / "history.json", json.dumps(progress.history, indent=1) + "\n")
        self._checkpoints.save()
        with not_fatal("TensorBoard's curves and images of this epoch"):
            self._board.scalars(progress.step, values)
            if measured:
                self._after_epoch(self._board, progress.step)
        self._print_epoch(values, better)
        if warning:
            self._console.line(warning)

    def _is_best(self, values: dict[str, float]) -> bool:
        """Whether these are the best accuracies so far; then they are remembered."""
        progress, found = self.progress, (values[f"validation/{self._best_by}"], values["validation/clean"])
        better = found > (progress.best, progress.best_clean)
        if better:
            progress.best, progress.best_clean = found
        return better

    def _print_epoch(self, values: dict[str, float], better: bool) -> None:
        shown = {**values, "train/loss": values["train/epoch_loss"], "speed/images_per_second": self._training.speed}
        line = epoch_line(self.progress.epoch, self._epochs, shown, remaining=self._all.left, best=better)
        self._console.line(line)

    def _images(self, epochs: int) -> int:
        return epochs * self._batches.images_per_epoch


def epoch_line(epoch: int, epochs: int, values: Mapping[str, float], *, remaining: float, best: bool) -> str:
    """One epoch in one line; accuracies, where they were measured, are clean / robust."""
    measured = "".join(
        f"{part} {100 * values[f'{part}/clean']:.1f}/{100 * values[f'{part}/robust']:.1f} %  "
        for part in ("train", "validation")
        if f"{part}/clean" in values
    )
    return (
        f"epoch {epoch:>{len(str(epochs))}}/{epochs}  loss {values['train/loss']:.4f}  {measured}"
        f"{values['speed/images_per_second']:.0f} images/s  {duration(remaining)} left{'  best' if best else ''}"
    )
