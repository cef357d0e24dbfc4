"""What replicas of one step tell each other; for use inside strategy.run."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def place(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(First row, all rows): where this replica's share of so many rows stands in the global batch."""
    own = tf.distribute.get_replica_context().replica_id_in_sync_group
    shares = total([tf.one_hot(own, count(), on_value=rows, off_value=0, dtype=rows.dtype)])[0]
    return tf.reduce_sum(tf.where(tf.range(count()) < own, shares, 0)), tf.reduce_sum(shares)


def count() -> int:
    """How many replicas share the global batch."""
    return int(tf.distribute.get_replica_context().num_replicas_in_sync)


def mean(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Averages floating tensors over the replicas; other state (seed counters) is the same on all."""
    floating = [v for v in values if v.dtype.is_floating]
    means = iter(_reduce(tf.distribute.ReduceOp.MEAN, floating))
    return [next(means) if v.dtype.is_floating else v for v in values]


def own(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Leaves each replica what it has."""
    return list(values)


def total(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Sums tensors over the replicas."""
    return _reduce(tf.distribute.ReduceOp.SUM, values)


def _reduce(operation: tf.distribute.ReduceOp, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """ReplicaContext.all_reduce, but not differentiable.

    To be so, all_reduce walks the graph of the other replicas once per tensor; for the gradients of
    an 18-layer network that takes most of the time of tracing.
    """
    if count() == 1 or not values:
        return list(values)

    def merge(strategy: tf.distribute.Strategy, *merged: Any) -> list[Any]:
        reduced: dict[int, Any] = {}
        for dtype in dict.fromkeys(v.dtype for v in values):  # GPUs pack into one what is added up together
            places = [place for place, v in enumerate(values) if v.dtype == dtype]
            together = strategy.extended.batch_reduce_to(operation, [(merged[place],) * 2 for place in places])
            reduced.update(zip(places, together, strict=True))
        return [reduced[place] for place in range(len(merged))]

    return tf.distribute.get_replica_context().merge_call(merge, args=tuple(values))
