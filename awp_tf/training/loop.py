"""Runs training steps under a tf.distribute strategy: epochs, validation, logs, exact resume."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf.data.batches import Batches
from awp_tf.examples import plainly
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import Console, Pace
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.infra.tensorboard import Board
from awp_tf.infra.workers import Workers
from awp_tf.trainer import RobustTrainer
from awp_tf.training.collapse import collapse
from awp_tf.training.records import NoRecords, Records
from awp_tf.training.state import TrainingState, epoch_line

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
        workers: Workers = Workers(),
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
            workers: The processes that train together.
        """
        self._trainer, self._batches, self._validate = trainer, batches, validate
        self._epochs, self._folder, self._patience = epochs, folder, patience
        self._best_by, self._validate_every, self._keep_every = best_by, validate_every, keep_every
        self._after_epoch, self._workers = after_epoch, workers
        self._strategy = tf.distribute.get_strategy()
        self._pending: list[dict[str, tf.Tensor]] = []
        self.progress = TrainingState()
        records = Records if workers.is_chief else NoRecords
        self._records = records(folder, trainer, self.progress, checkpoint_minutes)

    def run(self) -> None:
        """Trains; returns when all epochs are over or early stopping says so.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state has been saved.
            UserError: The loss became NaN or infinite; the last good checkpoint is kept.
        """
        with self._workers.together():
            resumed = self._records.restore()
            self._require_same_epochs()
        self._workers.require_same("checkpoint", f"step {self.progress.step}")
        self._records.begin()
        self._records.mend(trained=self.progress.stopped or self.progress.epoch >= self._epochs)
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
                self._decide(self._workers.agree(interrupt.signum, self._records.due))
            self._fetch()
            self._training.pause()
            self._trainer.averaged.refresh(self._trained_on(interrupt), self.progress.epoch + 1)
            self._finish_epoch(self._measure(interrupt))
            self._training.resume()
            self._decide(self._workers.meet(interrupt.signum, False))

    def _decide(self, agreed: Sequence[int]) -> None:
        """(Signal, whether a checkpoint is due): all workers do the same at the same step."""
        signum, due = agreed
        if signum:
            raise Interrupted(signum)
        if due:
            self._save()

    def _distributed_data(self) -> Any:
        start, stop = self.progress.step, self._epochs * self._batches.steps_per_epoch

        def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return self._batches.shares(start, stop, context.input_pipeline_id, context.num_input_pipelines)

        return self._strategy.distribute_datasets_from_function(own)

    def _trained_on(self, interrupt: Interrupt) -> Iterator[Sequence[tf.Tensor]]:
        """The batches of the epoch that is over, once more; nothing is read before the first is asked for."""
        step = self.progress.step
        for batch in self._batches.dataset(step - self._batches.steps_per_epoch, step):
            self._workers.stop(interrupt.signum)
            yield batch

    def _save(self) -> None:
        """The state as it is, the logs of all steps so far included."""
        self._fetch()
        self._records.save()

    def _require_same_epochs(self) -> None:
        """A last batch that other replicas cannot share as evenly makes other epochs."""
        progress, per_epoch = self.progress, self._batches.steps_per_epoch
        before = int(progress.history[-1]["step"]) // progress.epoch if progress.history else per_epoch
        if before != per_epoch:
            raise UserError(
                f"{self._folder}: expected epochs of {before} steps, as before, received {per_epoch}; train on as many "
                "devices as then."
            )

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
        taken = [values for step, values in enumerate(logs, start=first) if self._finite(step, values)]
        for values in taken:
            for name, value in {**values, "steps": 1.0}.items():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
        images = self._batches.images_before(self.progress.step) - self._batches.images_before(first)
        self._all.advance(images)
        speed = self._training.advance(images)
        self._console.advance(images)
        self._console.note(loss=f"{logs[-1]['loss']:.4f}")
        rate = float(keras.ops.convert_to_numpy(self._trainer.optimizer.learning_rate))
        shown = taken or logs[-1:]
        means = {name: float(np.mean([values[name] for values in shown])) for name in logs[0]}
        means["train/loss"] = means.pop("loss")
        self._records.scalars({**means, "learning_rate": rate, "speed/images_per_second": speed})

    def _finite(self, step: int, values: dict[str, float]) -> bool:
        """Whether a step was one; in float16 it is left out where it overflowed, and the scale halved."""
        finite = bool(np.isfinite(values["loss"]))
        if not finite and values.get("loss_scale", 0.0) < 1:
            raise UserError(
                f"step {step}: the loss is {values['loss']}; expected a finite number. Checkpoints of earlier epochs "
                f"are kept in {self._folder / 'checkpoints'}; try a smaller rate or gamma, or more bits, anew."
            )
        return finite

    def _measure(self, interrupt: Interrupt) -> dict[str, float]:
        """Accuracies of the network as it stands, where they are due."""
        epoch = self.progress.epoch + 1
        due = epoch % self._validate_every == 0 or epoch == self._epochs
        return {} if not due else self._validate(lambda images: self._workers.stop(interrupt.signum))

    def _finish_epoch(self, values: dict[str, float]) -> None:
        """Logs, keeps the best network, saves the state."""
        progress, epoch, measured = self.progress, self.progress.epoch + 1, bool(values)
        values["train/epoch_loss"] = progress.sums.get("loss", np.nan) / progress.sums.get("steps", 1.0)
        warning = collapse(progress.history, values) if self._best_by == "robust" else None
        progress.sums, progress.epoch = {}, epoch
        better = measured and self._is_best(values)
        if better:
            progress.best_epoch = epoch
            self._records.keep("best")
        if self._patience is not None and measured:
            progress.stopped = epoch - progress.best_epoch >= self._patience
        if epoch == self._epochs or progress.stopped:
            self._records.keep("last")
        if self._keep_every is not None and epoch % self._keep_every == 0:
            self._records.keep_epoch(epoch)
        progress.history.append({"epoch": epoch, "step": progress.step, **values})
        self._records.history()
        self._records.save()
        self._records.scalars(values)
        if measured:
            self._records.show("images", self._after_epoch)
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
