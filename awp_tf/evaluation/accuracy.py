"""Accuracy of a network under a set of attacks, and the robust generalisation gap."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.attacks import Attack, untargeted
from awp_tf.box import require_pixels
from awp_tf.data.batches import ordered, spread
from awp_tf.data.splits import Split
from awp_tf.functional import bind, predictor, read
from awp_tf.infra.devices import devices_in_scope, full_precision
from awp_tf.infra.errors import UserError, at_least
from awp_tf.losses import correct, misclassified
from awp_tf.noise import EVALUATION, ImageSeeds, make_seed
from awp_tf.threats import Threat, require_fixed
from awp_tf.types import Labelled, Weights

Rows = tuple[int, list[tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How robust accuracy is measured.

    Attributes:
        attack: Under which attack.
        examples: On at most so many images of a split; None is all.
        batch_size: Images at a time.
    """

    attack: Attack
    examples: int | None = 1000
    batch_size: int = 250

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("Measurement.batch_size", self.batch_size, 1)
        if self.examples is not None:
            at_least("Measurement.examples", self.examples, 1)
        require_fixed("Measurement", self.threat)

    @property
    def threat(self) -> Threat | None:
        """The ball of the attack."""
        return self.attack.threat

    @property
    def attacks(self) -> dict[str, Attack]:
        """What is measured."""
        return {"robust": self.attack}

    def subset(self, split: Split) -> Split:
        """The images measured: spread evenly over the split, always the same."""
        return spread(split, self.examples)

    def batches(self, split: Split, dtype: str) -> tf.data.Dataset:
        """Those images, in batches."""
        return ordered(self.subset(split), self.batch_size, dtype)


class Evaluator:
    """Measures one network again and again; compiled once.

    The network is in evaluation mode and is not changed. Only images that it classifies correctly are attacked:
    the others are not robust, whatever an attack makes of them. An image's noise depends on seed and the place
    of the image alone, so two calls give the same numbers, in batches of any size. Made in the scope of a
    tf.distribute strategy, it attacks a batch on each of its devices side by side; the numbers are those of one.
    """

    def __init__(self, network: keras.Model, attacks: Mapping[str, Attack], *, seed: int = 0) -> None:
        """Prepares the attacks, each of which maximises the cross-entropy.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K].
            attacks: Names to attacks; "clean" is measured anyway.
            seed: What the attacks' noise depends on.

        Raises:
            UserError: An attack is called "clean".
        """
        if "clean" in attacks:
            raise UserError("attacks: expected other names than clean, which is measured anyway.")
        self._network = network
        self._attacks = dict(attacks)
        self._key = make_seed(seed, EVALUATION).key
        self._dtype = network.inputs[0].dtype
        self._devices = devices_in_scope()
        values = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), self._values())
        images, labels = tf.TensorSpec(network.input_shape, self._dtype), tf.TensorSpec([None], tf.int32)
        self._right = tf.function(self._correct, input_signature=[*values, images, labels], autograph=False)
        signature = [*values, images, labels, tf.TensorSpec([None], tf.int64)]
        self._withstood = tf.function(self._count_robust, input_signature=signature, autograph=False)

    def __call__(
        self, batches: Iterable[Labelled], on_batch: Callable[[int], None] = lambda images: None
    ) -> dict[str, float]:
        """Accuracy in 0..1, "clean" and under each attack: of all images, those that are right before and after it.

        Args:
            batches: (images [B, H, W, C] in [0, 1], labels [B] of any whole type).
            on_batch: Called with the number of images after each batch, for progress; may raise.

        Raises:
            UserError: There are no images, or some are not in [0, 1].
        """
        found = self.count(batches, on_batch)
        total = found.pop("images")
        if not total:
            raise UserError("expected at least one image to evaluate on, received none.")
        return {name: count / total for name, count in found.items()}

    def count(
        self, batches: Iterable[Labelled], on_batch: Callable[[int], None] = lambda images: None, first: int = 0
    ) -> dict[str, int]:
        """How many "images" there were, and how many of them are right: "clean" and under each attack.

        Args:
            batches: See __call__.
            on_batch: See __call__.
            first: The place of the first image in its data set; noise depends on places.

        Raises:
            UserError: Images are not in [0, 1].
        """
        found = dict.fromkeys(("images", "clean", *self._attacks), 0)
        values = self._devices.copies(self._values())

        def correct_images() -> Iterator[Rows]:
            for images, labels in batches:
                x, y = require_pixels(tf.cast(images, self._dtype)), tf.cast(labels, tf.int32)
                rightly = self._right(*values[0], x, y)
                place = first + found["images"] + tf.range(len(y), dtype=tf.int64)
                yield len(y), [tf.boolean_mask(part, rightly) for part in (x, y, place)]
                found["images"] += len(y)
                on_batch(len(y))

        def attacked(device: int, rows: list[tf.Tensor]) -> dict[str, int]:
            withstood = self._withstood(*values[device], *rows)
            return {"clean": len(rows[0]), **{name: int(count) for name, count in withstood.items()}}

        with full_precision():
            for counts in self._devices.map(attacked, _regroup(correct_images())):
                for name, count in counts.items():
                    found[name] += count
        return found

    def _values(self) -> list[Weights]:
        """Weights and state as they are; of a network on several devices those of the first, which are saved, too."""
        return [read(self._network.trainable_variables), read(self._network.non_trainable_variables)]

    def _correct(self, weights: Weights, state: Weights, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Which images are classified correctly, [B]."""
        return correct(bind(self._network, weights, state, training=False)(x), y)

    def _count_robust(
        self, weights: Weights, state: Weights, x: tf.Tensor, y: tf.Tensor, image: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """How many of these images, all classified correctly, withstand each attack; see functional.robust."""
        predict, seeds = bind(self._network, weights, state, training=False), ImageSeeds(self._key, image)
        objective = untargeted(predict, y)
        fooled = {
            name: misclassified(predict(attack(objective, x, seeds)), y) for name, attack in self._attacks.items()
        }
        return {name: tf.reduce_sum(tf.cast(~each, tf.int32)) for name, each in fooled.items()}


def _regroup(parts: Iterable[Rows]) -> Iterator[list[tf.Tensor]]:
    """The rows of all parts in whole batches: sizes that change all the time are slow on a GPU, small ones everywhere.

    Args:
        parts: Size of a batch, and what is left of one.
    """
    size = 0
    waiting: list[tf.Tensor] = []
    for whole, part in parts:
        size = max(size, whole)
        waiting = [tf.concat(pair, 0) for pair in zip(waiting, part, strict=True)] if waiting else part
        if len(waiting[0]) >= size:
            yield [rows[:size] for rows in waiting]
            waiting = [rows[size:] for rows in waiting]
    if waiting and len(waiting[0]):
        yield waiting


def evaluate(
    network: keras.Model, batches: Iterable[Labelled], attacks: Mapping[str, Attack], *, seed: int = 0
) -> dict[str, float]:
    """Accuracy in 0..1, "clean" and under each attack; see Evaluator.

    Example:
        >>> from awp_tf.attacks import PGD
        >>> from awp_tf.data import digits, ordered
        >>> from awp_tf.evaluation.accuracy import evaluate
        >>> from awp_tf.networks import small_cnn
        >>> from awp_tf.threats import Linf
        >>> network, test = small_cnn(shape=(8, 8, 1), classes=10, width=4), digits().test.take(slice(50))
        >>> sorted(evaluate(network, ordered(test, 50), {"PGD-5": PGD(Linf(0.15), steps=5)}))
        ['PGD-5', 'clean']
    """
    return Evaluator(network, attacks, seed=seed)(batches)


def craft(network: keras.Model, attack: Attack, x: tf.Tensor, y: tf.Tensor, *, seed: int = 0) -> tf.Tensor:
    """Adversarial images for x [B, H, W, C] with labels y [B], the network in evaluation mode."""
    return attack(untargeted(predictor(network), y), x, make_seed(seed, EVALUATION))


def robust_gap(train: float, test: float) -> float:
    """The robust generalisation gap: robust accuracy on training images minus that on test images.

    Both under the same attack, in evaluation mode, not augmented, at unperturbed weights
    (Wu et al., NeurIPS 2020, section 2).

    Example:
        >>> from awp_tf.evaluation.accuracy import robust_gap
        >>> round(robust_gap(train=0.80, test=0.75), 3)
        0.05
    """
    return train - test


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's; NaN for fewer than 3 points, or where nothing varies."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
