"""One task after another: epochs, early stop, what is measured after each, exact resume."""

import json
import pathlib
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from awp_tf.continual.measure import Measure
from awp_tf.continual.memory import Reservoir
from awp_tf.continual.report import Measured, points, task_line, warn_of_full
from awp_tf.continual.settings import Continual
from awp_tf.continual.state import Lifetime
from awp_tf.continual.tasks import Task, heads
from awp_tf.continual.trainer import ContinualTrainer
from awp_tf.data import Batches
from awp_tf.infra import memory
from awp_tf.infra.checkpoints import Checkpoints, noise_states, save_network
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.progress import Console, Pace, duration
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.infra.tensorboard import Board, not_fatal

_ORDER = 3  # a purpose of randomness, beside those of the memory
_UPDATES_PER_FETCH = 20


class Loop:
    """Learns to the end from wherever the folder's newest checkpoint stands.

    Attributes:
        progress: Where the run stands; progress.tasks is what was measured.
    """

    def __init__(
        self, trainer: ContinualTrainer, tasks: Sequence[Task], settings: Continual, folder: pathlib.Path
    ) -> None:
        """Prepares a run.

        Args:
            trainer: Compiled.
            tasks: In the order in which they are learned.
            settings: Of the run.
            folder: Where checkpoints, last.keras, history.json and tensorboard/ go.
        """
        network, learner = trainer.network, settings.learner
        self._trainer, self._tasks, self._settings, self._folder = trainer, tasks, settings, folder
        self._open = heads(tasks, network.outputs[0].shape[-1])
        self._memory = Reservoir(learner.memory, network.input_shape[1:], settings.seed)
        self._measure = Measure(network, tasks, settings)
        self._ending = settings.early_stop.ending(network, learner.learning_rate)
        self._update = tf.function(trainer.train_step, input_signature=[self._signature()], autograph=False)
        self._pending: list[tf.Tensor] = []
        self.progress = Lifetime()
        self._checkpoints = Checkpoints(
            folder / "checkpoints",
            self.progress,
            network=network,
            optimizer=trainer.optimizer,
            memory=self._memory,
            bases=trainer.bases,
            importance=trainer.importance,
            best=self._ending.kept,
            **noise_states(network),
        )

    def run(self) -> None:
        """Learns all tasks.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state has been saved.
            UserError: The loss became NaN or infinite.
        """
        resumed, progress = self._checkpoints.restore(), self.progress
        self._board = Board(self._folder / "tensorboard", steps=progress.step)
        total, done = self._images(len(self._tasks)), self._images(progress.task) + progress.images
        self._console, self._pace = Console("learning", total, done), Pace(total, done)
        if resumed and progress.task < len(self._tasks):
            self._console.line(f"going on with {self._tasks[progress.task].name}, epoch {progress.epoch + 1}")
        with Interrupt() as self._interrupt:
            try:
                while progress.task < len(self._tasks):
                    self._learn(self._tasks[progress.task])
            except Interrupted:
                self._fetch()
                self._checkpoints.save()
                raise
            finally:
                self._console.close()

    def _learn(self, task: Task) -> None:
        progress, settings = self.progress, self._settings
        if progress.batch == 0:
            self._trainer.begin_task()
        seed = int(np.random.SeedSequence((settings.seed, progress.task)).generate_state(1)[0])
        batches = Batches(task.train, settings.data.batch_size, settings.data.augment, seed)
        while progress.epoch < settings.epochs and not progress.stopped:
            for x, y in batches.dataset(progress.batch, (progress.epoch + 1) * batches.steps_per_epoch):
                self._use(task, x.numpy(), np.array(task.classes, np.int32)[y.numpy()])
                self._interrupt.check()
            self._finish_epoch()
        self._finish_task(task)

    def _use(self, task: Task, x: np.ndarray, y: np.ndarray) -> None:
        """All glances at one batch; in the first epoch the memory takes some of it in."""
        progress, glances = self.progress, self._settings.learner.glances
        began = time.perf_counter()
        for glance in range(glances):
            number = progress.step * glances + glance
            order = np.random.default_rng((self._settings.seed, _ORDER, number)).permutation(len(y))
            kept = self._memory.draw(len(y), number)
            images = np.concatenate([x[order], kept.images])
            labels = np.concatenate([y[order], kept.labels])
            tasks = np.concatenate([np.full(len(y), progress.task), kept.tasks])
            data = (images, labels, self._open[tasks], np.int32(len(y)), np.float32(progress.scale))
            self._note(self._update(data)["loss"])
        if progress.epoch == 0:
            self._memory.add(x, y, progress.task)
        progress.step, progress.batch, progress.images = progress.step + 1, progress.batch + 1, progress.images + len(y)
        progress.seconds += time.perf_counter() - began
        self._console.advance(len(y))
        self._pace.advance(len(y))

    def _note(self, loss: tf.Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) >= _UPDATES_PER_FETCH:
            self._fetch()

    def _fetch(self) -> None:
        """Brings the losses of the last updates to the host."""
        found = [float(loss) for loss in self._pending]
        self._pending = []
        if not np.isfinite(found).all():
            self._refuse(f"the loss is {found[-1]}")
        self.progress.losses = [self.progress.losses[0] + sum(found), self.progress.losses[1] + len(found)]

    def _refuse(self, what: str) -> None:
        raise UserError(
            f"task {self.progress.task + 1}: {what}; expected finite numbers. Checkpoints of before are kept in "
            f"{self._folder / 'checkpoints'}; try a smaller LEARNING_RATE in a new folder."
        )

    def _finish_epoch(self) -> None:
        """Looks whether the task is over, logs, saves the state."""
        progress = self.progress
        self._fetch()
        if not all(np.isfinite(weight).all() for weight in self._trainer.network.get_weights()):
            self._refuse("weights are no numbers")
        place, number = progress.task, progress.epoch + 1
        values = {"train/loss": progress.losses[0] / progress.losses[1]}

        def loss() -> float:
            values["validation/loss"] = self._measure.validation_loss(place, self._check)
            return values["validation/loss"]

        if self._ending.after_epoch(progress, loss):
            self._trainer.slow_down(progress.scale)
        progress.epoch, progress.losses = number, [0.0, 0.0]
        values["importance"] = self._mean_importance()
        progress.history.append({"task": place + 1, "epoch": number, "step": progress.step, **values})
        write_text(self._folder / "history.json", json.dumps(progress.history, indent=1) + "\n")
        self._checkpoints.save()
        with not_fatal("TensorBoard's curves of this epoch"):
            self._board.scalars(progress.step, {**values, "learning_rate": self._rate()})
        if self._settings.epochs > 1:
            said = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if np.isfinite(value))
            self._console.line(f"  epoch {number}/{self._settings.epochs}  {said}  rate {self._rate():.2g}")

    def _finish_task(self, task: Task) -> None:
        """Measures all tasks so far, finds the bases, saves the state; a resumed run comes here again."""
        progress, trainer = self.progress, self._trainer
        self._ending.end()
        began = time.perf_counter()
        found = [self._measure.accuracies(place, self._check) for place in range(progress.task + 1)]
        measured: Measured = {"accuracy": {name: [each[name] for each in found] for name in found[0]}}
        if self._settings.sharpness.directions:
            measured["rise"] = [self._measure.rise(place, self._check) for place in range(progress.task + 1)]
        tested = time.perf_counter()
        self._find_bases(task)
        if trainer.bases.layers:
            measured["basis"] = trainer.bases.sizes()
            warn_of_full(task, trainer.bases.sizes())
        measured["cost"] = self._cost(tested - began, time.perf_counter() - tested)
        save_network(trainer.network, self._folder / "last.keras")
        progress.begin_next(measured)
        self._checkpoints.save()
        self._say(task, measured)

    def _find_bases(self, task: Task) -> None:
        basis, bases = self._settings.learner.basis, self._trainer.bases
        if not bases.layers:
            return
        kept = self._memory.draw_for_basis(basis.samples, self.progress.task).images
        own = next(iter(Batches(task.train, min(basis.samples, len(task.train))).dataset(0, 1)))[0].numpy()
        bases.extend(own if basis.from_task else kept, basis.energy(self.progress.task), anew=not basis.from_task)

    def _cost(self, testing: float, finding: float) -> dict[str, float]:
        progress = self.progress
        return {
            "train_seconds": progress.seconds,
            "images_per_second": progress.images / max(progress.seconds, 1e-9),
            "test_seconds": testing,
            "basis_seconds": finding,
            "basis_numbers": sum(k * d for k, d in self._trainer.bases.sizes().values()),
            "memory_images": len(self._memory),
            "peak_bytes": memory.peak(),
        }

    def _say(self, task: Task, measured: Measured) -> None:
        """A task in one line, and TensorBoard's points."""
        step, pace = self.progress.task, self._pace
        line = task_line(task, measured["accuracy"])
        self._console.line(f"{step}/{len(self._tasks)}  {line}  {pace.speed:.0f} images/s  {duration(pace.left)} left")
        with not_fatal("TensorBoard's curves of this task"):
            self._board.scalars(step, points(measured))

    def _mean_importance(self) -> float:
        """Over all directions kept; 1 where there are none."""
        sizes = [k for k, _ in self._trainer.bases.sizes().values()]
        values = [v.numpy()[:k] for v, k in zip(self._trainer.importance.values(), sizes, strict=True)]
        return float(np.concatenate(values).mean()) if sum(sizes) else 1.0

    def _check(self, images: int) -> None:
        self._interrupt.check()

    def _rate(self) -> float:
        return float(self._trainer.optimizer.learning_rate.numpy())

    def _images(self, tasks: int) -> int:
        return sum(len(task.train) for task in self._tasks[:tasks]) * self._settings.epochs

    def _signature(self) -> tuple[tf.TensorSpec, ...]:
        network = self._trainer.network
        return (
            tf.TensorSpec([None, *network.input_shape[1:]], network.inputs[0].dtype),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, network.outputs[0].shape[-1]], tf.bool),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
        )
