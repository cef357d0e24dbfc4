"""What to train on: a source, how it is cut, how it becomes batches."""

import dataclasses
from collections.abc import Callable

import numpy as np

from awp_tf.data.augment import Augment, NoAugment
from awp_tf.data.batches import Batches, hold_out
from awp_tf.data.extra import Extra, NoExtra
from awp_tf.data.mixing import Mix, NoMix
from awp_tf.data.sources import Source
from awp_tf.data.splits import Split
from awp_tf.infra.errors import UserError, at_least, whole_seed


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train on.

    Attributes:
        source: Called without arguments, reads the data.
        batch_size: Over all replicas together.
        augment: Done to training images.
        validation: How many training images (or which fraction below 1) are held out to choose the
            best network; None takes the validation images that come with the data, else 1,000 or a tenth, whichever is
            less.
        validation_seed: Which ones; the same for all runs unless changed.
        limit: Use only so many training images; None uses all.
        extra: Adds pseudo-labelled or generated images to every batch.
        mix: Done to a batch in [0, 1] and to its labels, after augment: smooths labels, blends images.
    """

    source: Callable[[], Source]
    batch_size: int = 128
    augment: Augment = NoAugment()
    validation: int | float | None = None
    validation_seed: int = 0
    limit: int | None = None
    extra: Extra = NoExtra()
    mix: Mix = NoMix()

    def __post_init__(self) -> None:
        """Raises UserError where the source is no function that reads data, or another part no object."""
        if not callable(self.source):
            raise UserError(f"Data.source: expected a source such as @digits (no brackets), received {self.source!r}.")
        for name, example in (
            ("augment", "@PadCropFlip() or @NoAugment()"),
            ("extra", "@ExtraData()"),
            ("mix", "@MixUp()"),
        ):
            part = getattr(self, name)
            if isinstance(part, type) or not callable(part):
                raise UserError(f"Data.{name}: expected an object such as {example}, received {part!r}.")

    def load(self) -> tuple[Source, Split, Split]:
        """(Source, training images, validation images)."""
        whole_seed("Data.validation_seed", self.validation_seed)
        source = self.source()
        train, validation = self._divided(source)
        if self.limit is not None:
            at_least("Data.limit", self.limit, 1)
            chosen = np.random.RandomState(self.validation_seed).permutation(len(train))[: self.limit]
            train = train.take(np.sort(chosen))
        return source, train, validation

    def _divided(self, source: Source) -> tuple[Split, Split]:
        """(Training images, validation images)."""
        if source.validation is None:
            return hold_out(source.train, self.validation, self.validation_seed)
        if self.validation is None:
            return source.train, source.validation
        print(
            f"{source.name}: its {len(source.validation):,} validation images are left out, since Data.validation is "
            f"{self.validation} of the training images"
        )
        return hold_out(source.train, self.validation, self.validation_seed)

    def batches(self, source: Source, split: Split, seed: int, replicas: int, dtype: str) -> Batches:
        """Training batches.

        Args:
            source: What load gave.
            split: Its training images.
            seed: What order and augmentation depend on.
            replicas: How many share a batch.
            dtype: Of the images.

        Raises:
            UserError: The batch size, the augmentation, the mix or the extra data do not fit.
        """
        plain = Batches(split, self.batch_size, self.augment, seed, replicas, dtype, self.mix, source.classes)
        return self.extra(plain, source)
