"""A training step as replicas share it, and the reductions between them alone (for --scale and --find_batch_size)."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from awp_tf import replicas
from awp_tf.infra.errors import UserError
from awp_tf.training.recipe import Recipe
from tools.timing import Step

Reduction = list[tf.TensorSpec]  # tensors that are added up at once


class SharedStep:
    """A step of a recipe on one batch, which the replicas of a strategy share.

    Attributes:
        trainer: Whose step it is.
        reductions: What the replicas add up in a step, in the order of tracing; nothing before it, or where there is
            one.
    """

    def __init__(self, recipe: Recipe, strategy: tf.distribute.Strategy, x: np.ndarray, y: np.ndarray, classes: int):
        """Makes the trainer; the first call traces the step, unless trace did.

        Args:
            recipe: How to train.
            strategy: Who shares the batch.
            x: Images [B, H, W, C] of the global batch, in [0, 1].
            y: Labels [B].
            classes: How many labels there are.

        Raises:
            UserError: The replicas cannot share the batch evenly.
        """
        if len(x) % strategy.num_replicas_in_sync:
            raise UserError(
                f"--batch_sizes: expected a multiple of the {strategy.num_replicas_in_sync} devices, received {len(x)}."
            )
        self._strategy = strategy
        self.reductions: list[Reduction] = []
        with strategy.scope():
            self.trainer = recipe.trainer(x.shape[1:], classes, epochs=1, steps_per_epoch=1, seed=0)
        self._batch = tuple(self._distribute(array) for array in (x.astype(recipe.dtype), y))
        self._step = tf.function(self._step_of_all, autograph=False)

    def trace(self) -> None:
        """Does what the first call would do first."""
        self._step.get_concrete_function(self._batch)

    def graph(self) -> tf.types.experimental.ConcreteFunction:
        """The step of all replicas, traced for whoever wants to read it."""
        step = tf.function(lambda batch: self._strategy.run(self.trainer.train_step, args=(batch,)), autograph=False)
        return step.get_concrete_function(self._batch)

    @property
    def traces(self) -> int:
        """How often the step was traced."""
        return int(self._step.experimental_get_tracing_count())

    def __call__(self) -> float:
        """Takes a step and waits for its end; returns the loss."""
        loss = self._step(self._batch)["loss"]
        return float(self._strategy.experimental_local_results(loss)[0])

    def reduce_alone(self) -> Step:
        """The reductions of a step one after the other, and nothing else; already traced."""
        strategy, specs = self._strategy, self.reductions

        def add_up(groups: Sequence[Sequence[tf.Tensor]]) -> list[tf.Tensor]:
            done: list[tf.Tensor] = []
            for tensors in groups:
                with tf.control_dependencies(done):  # a step needs one before it can begin the next
                    values = [tf.identity(tensor) for tensor in tensors]
                done = replicas.total(values)
            return done

        def zeros() -> list[list[tf.Tensor]]:
            return [[tf.zeros(spec.shape, spec.dtype) for spec in group] for group in specs]

        # Made beforehand, and handed over: as a part of the graph they would be folded into its result.
        groups = tf.function(lambda: strategy.run(zeros), autograph=False)()
        all_of_them = tf.function(lambda given: strategy.run(add_up, args=(given,)), autograph=False)

        def step() -> float:
            last = all_of_them(groups)[-1]
            return float(np.sum(strategy.experimental_local_results(last)[0]))

        step()
        return step

    @property
    def reduced_bytes(self) -> int:
        """Of all tensors that a replica adds to the others' in a step."""
        return sum(int(np.prod(spec.shape)) * spec.dtype.size for group in self.reductions for spec in group)

    def _step_of_all(self, batch: Any) -> Any:
        with recorded(self._strategy) as self.reductions:
            return self._strategy.run(self.trainer.train_step, args=(batch,))

    def _distribute(self, array: np.ndarray) -> Any:
        size = len(array) // self._strategy.num_replicas_in_sync

        def own(context: Any) -> tf.Tensor:
            first = context.replica_id_in_sync_group * size
            return tf.constant(array[first : first + size])

        return self._strategy.experimental_distribute_values_from_function(own)


@contextlib.contextmanager
def recorded(strategy: tf.distribute.Strategy) -> Iterator[list[Reduction]]:
    """What replicas add up in a graph that is traced meanwhile: in awp_tf.replicas, all of it by batch_reduce_to."""
    extended, local = strategy.extended, strategy.experimental_local_results
    reduce, reductions = extended.batch_reduce_to, list[Reduction]()

    def recording(operation: Any, pairs: Sequence[Any], *options: Any, **named: Any) -> Any:
        first = [local(value)[0] for value, _ in pairs]
        reductions.append([tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in first])
        return reduce(operation, pairs, *options, **named)

    extended.batch_reduce_to = recording
    try:
        yield reductions
    finally:
        del extended.batch_reduce_to  # the class' is seen again
