"""What is measured while a network is trained."""

from collections.abc import Callable

import tensorflow as tf

from awp_tf.data import Split, ordered
from awp_tf.evaluation.accuracy import Evaluator, Measurement, craft
from awp_tf.infra.tensorboard import Board
from awp_tf.infra.workers import Workers
from awp_tf.trainer import RobustTrainer


class Monitor:
    """Measures the network that would be saved now, on training and validation images."""

    def __init__(
        self,
        trainer: RobustTrainer,
        measurement: Measurement,
        train: Split,
        validation: Split,
        dtype: str,
        workers: Workers,
    ) -> None:
        """Prepares it; call it in the scope of the trainer's strategy."""
        self._network = trainer.averaged.network
        self._attack, self._workers = measurement.attack, workers
        self._evaluator = Evaluator(self._network, measurement.attacks)
        self._parts: dict[str, tuple[int, tf.data.Dataset]] = {}
        for part, split in {"train": train, "validation": validation}.items():
            images = measurement.subset(split)
            first, stop = workers.share(0, len(images))
            self._parts[part] = first, ordered(images.take(slice(first, stop)), measurement.batch_size, dtype)
        self._shown = next(iter(ordered(measurement.subset(validation).take(slice(8)), 8, dtype)))

    def measure(self, on_batch: Callable[[int], None]) -> dict[str, float]:
        """Accuracies such as "validation/robust"; each worker looks at its share of the images."""
        measured = {}
        for part, (first, batches) in self._parts.items():
            counts = self._workers.total(self._evaluator.count(batches, on_batch, first))
            total = counts.pop("images")
            measured.update({f"{part}/{name}": count / total for name, count in counts.items()})
        return measured

    def show(self, board: Board, step: int) -> None:
        """A few validation images and what the attack makes of them."""
        x, y = self._shown
        board.images(step, x, craft(self._network, self._attack, x, y))
