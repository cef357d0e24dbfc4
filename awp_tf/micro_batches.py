"""A global batch that does not fit into memory: its passes are made on one part of it after another.

Micro-batches are to time what replicas are to space: gradients add up to that of the whole batch, in the search for the
worst weights, too, so the step is the same, but for what couples the images of a batch: SoftLabelTRADES, and BatchNorm,
which normalises each part by its own statistics; its running statistics move by the mean over the parts, as they do
over replicas.
"""

from typing import Any

import tensorflow as tf

from awp_tf import noise
from awp_tf.perturbations import Perturbation
from awp_tf.step import ClassifierStep, Now
from awp_tf.types import Batch, Weights


class MicroBatchStep(ClassifierStep):
    """A step of a classifier whose passes see one part of the batch at a time."""

    def __init__(self, *args: Any, parts: int, **settings: Any) -> None:
        """See ClassifierStep; a batch is cut into so many parts of one size, the last of which may overlap others."""
        super().__init__(*args, **settings)
        self._parts = parts

    def _craft_pure(self, weights: Weights, now: Now, seed: noise.Seed, start: tf.Tensor | None) -> tf.Tensor:
        craft = super()._craft_pure

        def body(i: tf.Tensor, x_adv: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows, part = self._part(now, i)
            begin = None if start is None else tf.gather(start, rows)
            found = craft(weights, part, seed._replace(first=part.batch.first), begin)
            return i + 1, tf.tensor_scatter_nd_update(x_adv, rows[:, tf.newaxis], found)

        return self._loop(body, now.batch.x)[0]

    def _gradients_pure(
        self, perturbation: Perturbation, weights: Weights, state: Weights, now: Now, x_adv: tf.Tensor, seed: noise.Seed
    ) -> tuple[tf.Tensor, Weights, Weights]:
        gradients_of = super()._gradients_pure

        def body(i: tf.Tensor, total: tf.Tensor, gradients: Weights, states: Weights) -> tuple[Any, ...]:
            rows, part = self._part(now, i)
            # Counters of a layer's noise go on from part to part, or all parts would have the same Dropout mask.
            given = [old if old.dtype.is_floating else new for old, new in zip(state, states, strict=True)]
            loss, found, new = gradients_of(perturbation, weights, given, part, tf.gather(x_adv, rows), seed)
            gradients = [g + f for g, f in zip(gradients, found, strict=True)]
            return i + 1, total + loss, gradients, [self._add(s, n) for s, n in zip(states, new, strict=True)]

        zero = tf.zeros([], now.batch.weight.dtype)
        begin = (
            zero,
            [tf.zeros_like(w) for w in weights],
            [tf.zeros_like(s) if s.dtype.is_floating else s for s in state],
        )
        total, gradients, states = self._loop(body, *begin)
        return total, gradients, states

    def _add(self, mean: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        """One more part's share of a mean; of counters, what the part has made of them."""
        return mean + value / self._parts if value.dtype.is_floating else value

    def _part(self, now: Now, i: tf.Tensor) -> tuple[tf.Tensor, Now]:
        """(Rows, and the batch they make); a row that an earlier part had has no weight."""
        batch: Batch = now.batch
        count = tf.shape(batch.x)[0]
        size = -(-count // self._parts)
        first = tf.minimum(i * size, count - size)
        rows = first + tf.range(size)
        fresh = tf.cast(rows >= i * size, batch.weight.dtype)
        x, y, weight = (tf.gather(tensor, rows) for tensor in (batch.x, batch.y, batch.weight))
        x = tf.ensure_shape(x, [None, *batch.x.shape[1:]])
        return rows, now._replace(batch=Batch(x, y, weight * fresh, batch.first + first))

    def _loop(self, body: Any, *begin: Any) -> Any:
        """Parts one after the other, so that one at a time is held in memory; what body carries, in the end."""
        done = tf.while_loop(
            lambda i, *_: i < self._parts,
            body,
            (tf.constant(0), *begin),
            parallel_iterations=1,
            maximum_iterations=self._parts,
        )
        return done[1:]
