"""Accuracy of a network under a set of attacks, and the robust generalisation gap."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import keras
import tensorflow as tf

from awp_tf.attacks import PGD, Attack, Clean, untargeted
from awp_tf.checks import at_least
from awp_tf.data.pipeline import ordered
from awp_tf.data.sources import Split, spread
from awp_tf.functional import frozen
from awp_tf.random import EVALUATION, Seed, make_seed

Batch = tuple[tf.Tensor, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How robust accuracy is measured.

    Attributes:
        attack: Under which attack.
        examples: On at most so many images of a split; None is all.
        batch_size: Images at a time.
    """

    attack: Attack = PGD()
    examples: int | None = 1000
    batch_size: int = 250

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("Measurement.batch_size", self.batch_size, 1)
        if self.examples is not None:
            at_least("Measurement.examples", self.examples, 1)

    @property
    def attacks(self) -> dict[str, Attack]:
        """What is measured."""
        return {"clean": Clean(), "robust": self.attack}

    def subset(self, split: Split) -> Split:
        """The images measured: spread evenly over the split, always the same."""
        return spread(split, self.examples)

    def batches(self, split: Split, dtype: str) -> tf.data.Dataset:
        """Those images, in batches."""
        return ordered(self.subset(split), self.batch_size, dtype)


class Evaluator:
    """Measures one network again and again; compiled once.

    The network is in evaluation mode and is not changed. A batch's noise depends on seed and the
    place of the batch alone, so two calls give the same numbers.
    """

    def __init__(
        self, network: keras.Model, attacks: Mapping[str, Attack], *, seed: int = 0, xla: bool = False
    ) -> None:
        """Prepares the attacks, each of which maximises the cross-entropy.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K].
            attacks: Names to attacks; Clean() gives the accuracy on clean images.
            seed: What the attacks' noise depends on.
            xla: Compile with XLA.
        """
        self._network = network
        self._attacks = dict(attacks)
        self._seed = seed
        shape, dtype = network.input_shape, network.inputs[0].dtype
        signature = [tf.TensorSpec(shape, dtype), tf.TensorSpec([None], tf.int32), tf.TensorSpec([2], tf.int64)]
        self._count = tf.function(self._hits, input_signature=signature, jit_compile=xla, autograph=False)

    def __call__(
        self, batches: Iterable[Batch], on_batch: Callable[[int], None] = lambda images: None
    ) -> dict[str, float]:
        """Accuracy in 0..1 under each attack.

        Args:
            batches: (images [B, H, W, C], labels [B]).
            on_batch: Called with the number of images after each batch, for progress; may raise.
        """
        correct, total = dict.fromkeys(self._attacks, 0), 0
        for index, (x, y) in enumerate(batches):
            hits = self._count(x, y, make_seed(self._seed, EVALUATION, index).key)
            correct = {name: correct[name] + int(hits[name]) for name in correct}
            total += len(y)
            on_batch(len(y))
        return {name: count / total for name, count in correct.items()}

    def _hits(self, x: tf.Tensor, y: tf.Tensor, key: tf.Tensor) -> dict[str, tf.Tensor]:
        """How many images are classified correctly under each attack."""
        predict = frozen(self._network)
        adversarial = {name: attack(untargeted(predict, y), x, Seed(key)) for name, attack in self._attacks.items()}
        right = {name: tf.argmax(predict(z), -1) == tf.cast(y, tf.int64) for name, z in adversarial.items()}
        return {name: tf.reduce_sum(tf.cast(each, tf.int32)) for name, each in right.items()}


def evaluate(
    network: keras.Model, batches: Iterable[Batch], attacks: Mapping[str, Attack], *, seed: int = 0
) -> dict[str, float]:
    """Accuracy in 0..1 under each attack; see Evaluator."""
    return Evaluator(network, attacks, seed=seed)(batches)


def craft(network: keras.Model, attack: Attack, x: tf.Tensor, y: tf.Tensor, *, seed: int = 0) -> tf.Tensor:
    """Adversarial images for x [B, H, W, C] with labels y [B], the network in evaluation mode."""
    return attack(untargeted(frozen(network), y), x, make_seed(seed, EVALUATION))


def robust_gap(train: float, test: float) -> float:
    """The robust generalisation gap: robust accuracy on training images minus that on test images.

    Both under the same attack, in evaluation mode, not augmented, at unperturbed weights
    (Wu et al., NeurIPS 2020, section 2).
    """
    return train - test
