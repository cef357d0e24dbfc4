"""Batches of labelled images and extra ones, as robust self-training takes them."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from awp_tf.data.batches import Batches, Rows, rows_of
from awp_tf.data.splits import Split
from awp_tf.infra.errors import UserError, share
from awp_tf.noise import ALGORITHM, EXTRA, make_seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedBatches(Batches):
    """Training batches of which a fixed share is extra: pseudo-labelled or generated images.

    As in robust self-training (Carmon et al., NeurIPS 2019; datasets.py of the authors' code): an epoch is as many
    batches as there would be of the labelled images alone, all of full size; labelled images come without repetition
    from a fresh permutation in each epoch, which does not reach all of them; extra ones are drawn uniformly with
    repetition. The rows of a batch are shuffled, so that the shares of replicas are alike. Extra images are read from
    where they are, a batch at a time, so they may be a file that is mapped into memory.

    Attributes:
        extra: Images [M, H, W, C] like those of split, and their labels.
        ratio: Which part of a batch is extra, in (0, 1): round(ratio * batch_size) images of every batch.

    Example:
        >>> import numpy as np
        >>> from awp_tf.data import MixedBatches, Split, digits
        >>> train = digits().train
        >>> extra = Split(train.images[:5], np.full(5, -7, np.int32))  # labels to know them by
        >>> batches = MixedBatches(split=train, batch_size=64, extra=extra, ratio=0.25)
        >>> [int((y.numpy() == -7).sum()) for x, y in batches.dataset(0, 3)], batches.steps_per_epoch
        ([16, 16, 16], 23)
    """

    extra: Split
    ratio: float = 0.5

    def __post_init__(self) -> None:
        """Raises UserError where the ratio leaves a batch nothing of one kind; see also Batches."""
        super().__post_init__()
        share("ratio", self.ratio)
        if not 0 < self._extra_size < self.batch_size:
            raise UserError(
                f"ratio: expected extra and labelled images in a batch of {self.batch_size}, received {self.ratio}, "
                f"which makes {self._extra_size} of them extra; change it, or take a larger batch."
            )

    @property
    def identity(self) -> dict[str, object]:
        """See Batches."""
        return {"extra images": f"{len(self.extra)}, SHA-256 {self.extra.digest()}"}

    @property
    def remark(self) -> str:
        """See Batches."""
        return (
            f"\n{len(self.extra):,} extra images: {self._extra_size} of the {self.batch_size} of every batch "
            f"(ratio {self.ratio})"
        )

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch uses, extra ones included."""
        return -(-len(self.split) // self.batch_size) * self.batch_size

    @property
    def _extra_size(self) -> int:
        return round(self.ratio * self.batch_size)

    def _reader(self) -> Callable[[tf.Tensor, tf.Tensor], Rows]:
        """See Batches; the rows of both kinds are shuffled."""
        labelled, extra = rows_of(self.split), rows_of(self.extra)
        count = self.batch_size - self._extra_size

        def read(step: tf.Tensor, places: tf.Tensor) -> Rows:
            seed = make_seed(self.seed, EXTRA, step)
            draw = tf.random.stateless_uniform(
                [self._extra_size], seed.fold(0).key, 0, len(self.extra), dtype=tf.int64, alg=ALGORITHM
            )
            order = tf.random.experimental.index_shuffle(
                tf.range(self.batch_size), seed.fold(1).key, self.batch_size - 1
            )
            chosen = tf.gather(order, places)
            kind = tf.cast(chosen >= count, tf.int32)
            first, second = tf.dynamic_partition(chosen, kind, 2)
            rows = labelled(tf.gather(self._indices(step), first)), extra(tf.gather(draw, second - count))
            where = tf.dynamic_partition(tf.range(tf.size(places)), kind, 2)
            images, labels = (tf.dynamic_stitch(where, [*pair]) for pair in zip(*rows, strict=True))
            return tf.ensure_shape(images, [None, *self.split.images.shape[1:]]), labels

        return read

    def _indices(self, step: tf.Tensor) -> tf.Tensor:
        """Which labelled images step uses. Where an epoch needs more than there are, a second permutation follows."""
        epoch, turn = step // self.steps_per_epoch, step % self.steps_per_epoch
        count = tf.cast(self.batch_size - self._extra_size, tf.int64)
        places, total = turn * count + tf.range(count), len(self.split)
        # One permutation is named by two numbers in the public function, and by three in the operation below it.
        seeds = tf.stack([tf.fill([count], tf.cast(self.seed, tf.int64)), tf.fill([count], epoch), places // total], 1)
        return tf.raw_ops.RandomIndexShuffle(
            index=places % total, seed=seeds, max_index=tf.constant(total - 1, tf.int64), rounds=4
        )
