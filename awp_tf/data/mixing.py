"""Labels as probabilities, and images blended with each other; a pure function of images, labels and seed.

Keras has layers for this. Its MixUp keeps the state of its generator and blends in its own type, not in that of the
images; its CutMix takes the labels' shares from corners between the pixels, so that they are not those of the
images, and draws alpha at random.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Protocol

import tensorflow as tf

from awp_tf import noise
from awp_tf.data.augment import random_box
from awp_tf.infra.errors import at_least, fixed, fraction, positive
from awp_tf.noise import Seed

Mixed = tuple[tf.Tensor, tf.Tensor]  # images and labels


class Mix(Protocol):
    """Changes a batch and its labels at random; one with `by_row = True` never lets images meet (see Augment)."""

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """The changed batch.

        Args:
            images: In [0, 1], [B, H, W, C].
            labels: Integers [B], or probabilities [B, K].
            classes: K.
            seed: What the draw depends on.

        Returns:
            Images of the same shape and type, and probabilities [B, K] of that type.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoMix:
    """Images and labels as they are."""

    by_row: ClassVar[bool] = True

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """Returns images and labels."""
        return images, labels


@dataclasses.dataclass(frozen=True)
class SmoothLabels:
    """y <- (1 - amount) y + amount / K. Szegedy et al., CVPR 2016, section 7.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf import noise
        >>> from awp_tf.data import SmoothLabels
        >>> x, y = tf.zeros([1, 8, 8, 1]), tf.constant([0])
        >>> SmoothLabels(0.2)(x, y, 4, noise.make_seed(0))[1].numpy().round(2).tolist()
        [[0.8500000238418579, 0.05000000074505806, 0.05000000074505806, 0.05000000074505806]]

    Attributes:
        amount: In [0, 1).
    """

    by_row: ClassVar[bool] = True
    amount: float = 0.1

    def __post_init__(self) -> None:
        """Raises UserError where amount makes no sense."""
        fraction("SmoothLabels.amount", self.amount)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """See Mix."""
        labels = probabilities(labels, classes, images.dtype)
        return images, (1 - self.amount) * labels + self.amount / classes


@dataclasses.dataclass(frozen=True)
class MixUp:
    """x <- l x + (1 - l) x2 and y <- l y + (1 - l) y2, with another image of the batch and l ~ Beta(alpha, alpha).

    Zhang et al., ICLR 2018. Every image has an l of its own; the authors' code draws one for a batch.

    Attributes:
        alpha: Above 0; 1 makes all l equally likely, less leaves most images almost as they are.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where alpha makes no sense."""
        _require_alpha("MixUp.alpha", self.alpha)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """See Mix."""
        labels = probabilities(labels, classes, images.dtype)
        share = tf.cast(_beta(seed.fold(0), images, self.alpha), images.dtype)
        partner = _partners(seed.fold(1), images)
        return _blend(images, partner, _as(share, images)), _blend(labels, partner, _as(share, labels))


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A box of each image shows another image of the batch; the label is as mixed as the pixels are.

    Yun et al., ICCV 2019: the box has int(sqrt(1 - l) H) rows and int(sqrt(1 - l) W) columns, l ~ Beta(alpha, alpha),
    its centre is anywhere, and what reaches over the border is cut off. Every image has a box of its own; the
    authors' code draws one for a batch.

    Attributes:
        alpha: Above 0; 1 makes boxes of all areas equally likely.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where alpha makes no sense."""
        _require_alpha("CutMix.alpha", self.alpha)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """See Mix."""
        labels = probabilities(labels, classes, images.dtype)
        side = tf.sqrt(1 - _beta(seed.fold(0), images, self.alpha))
        rows, columns = (tf.cast(side * images.shape[axis], tf.int32) for axis in (1, 2))
        kept = tf.cast(~random_box(seed.fold(2), images, rows, columns), images.dtype)
        partner = _partners(seed.fold(1), images)
        share = tf.reduce_mean(kept, axis=[1, 2, 3])
        return _blend(images, partner, kept), _blend(labels, partner, _as(share, labels))


@dataclasses.dataclass(frozen=True)
class MixChain:
    """One mix after the other, each with noise of its own, for instance MixUp, then SmoothLabels."""

    parts: Sequence[Mix] = ()

    @property
    def by_row(self) -> bool:
        """Whether all parts are."""
        return all(getattr(part, "by_row", False) for part in self.parts)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, classes: int, seed: Seed) -> Mixed:
        """See Mix."""
        for index, part in enumerate(self.parts):
            images, labels = part(images, labels, classes, seed.fold(index))
        return images, labels


def probabilities(labels: tf.Tensor, classes: int, dtype: tf.DType) -> tf.Tensor:
    """Labels as probabilities [B, K] of a type.

    Raises:
        UserError: The number of classes is not said.
    """
    at_least("classes", classes, 1)
    if tf.as_dtype(labels.dtype).is_integer:
        return tf.one_hot(labels, classes, dtype=dtype)
    return tf.cast(labels, dtype)


def _require_alpha(name: str, alpha: object) -> None:
    fixed(name, alpha)
    positive(name, alpha)


def _beta(seed: Seed, images: tf.Tensor, alpha: float) -> tf.Tensor:
    """Beta(alpha, alpha) by two Gamma draws, float64 [B]; in double precision, where small alphas seldom underflow."""
    one, other = tf.unstack(tf.random.stateless_gamma([2, tf.shape(images)[0]], seed.key, alpha, dtype=tf.float64))
    return tf.math.divide_no_nan(one, one + other)


def _partners(seed: Seed, images: tf.Tensor) -> tf.Tensor:
    """A random order of the batch, [B]."""
    return tf.argsort(noise.uniform(seed, tf.cast(images[:, 0, 0, 0], tf.float64)))


def _as(share: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    return tf.reshape(share, [-1] + [1] * (like.shape.rank - 1))


def _blend(values: tf.Tensor, partner: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Share of values, and the rest of those of partner."""
    return share * values + (1 - share) * tf.gather(values, partner)
