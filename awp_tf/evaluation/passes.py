"""The adversarial loss of a network at any weights, over a set of images; and directions in which weights move."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from awp_tf import noise
from awp_tf.attacks import Attack, Clean, untargeted
from awp_tf.functional import bind, read, robust
from awp_tf.losses import cross_entropy
from awp_tf.noise import EVALUATION, ImageSeeds, make_seed
from awp_tf.perturbations import AWP
from awp_tf.types import Gradient, Labelled, Weights

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Height(NamedTuple):
    """What is found at one point.

    Attributes:
        loss: Mean adversarial loss.
        accuracy: Robust accuracy, in 0..1: of images that are right before and after the attack, as in Evaluator.
    """

    loss: float
    accuracy: float


class Passes:
    """One network, its weights an argument: traced once, and no variable is written.

    BatchNorm's statistics stay those of the network. An image's noise depends on seed and the place of the
    image alone: it is the same at every point, so that curves are smooth, and the same as Evaluator's.

    Attributes:
        weights: Of the network as it is.
    """

    def __init__(self, network: keras.Model, attack: Attack, *, seed: int, loss: Loss = cross_entropy) -> None:
        """Nothing is traced yet.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K].
            attack: Finds the images at which the loss is taken, anew at every point.
            seed: What the attack's noise depends on.
            loss: Logits [B, K] and labels [B] to losses [B].
        """
        self._network, self._attack, self._seed, self._loss = network, attack, seed, loss
        self._key = make_seed(seed, EVALUATION).key
        self.refresh()
        values = [[tf.TensorSpec(w.shape, w.dtype) for w in each] for each in (self.weights, self._state)]
        images = tf.TensorSpec([None, *network.input_shape[1:]], network.inputs[0].dtype)
        signature = [*values, images, tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64)]
        self._measure = tf.function(self._measure_pure, input_signature=signature, autograph=False)
        self._ascend = tf.function(self._gradient_pure, input_signature=signature, autograph=False)
        self._craft = tf.function(self._craft_pure, input_signature=signature, autograph=False)

    def refresh(self) -> None:
        """Takes the network as it is now; to be called where it has been trained since."""
        self.weights, self._state = read(self._network.trainable_variables), read(self._network.non_trainable_variables)

    def height(
        self, weights: Weights, batches: Sequence[Labelled], on_batch: Callable[[], None] = lambda: None
    ) -> Height:
        """The mean over images of the loss at weights, at images found by attacking the network there.

        Args:
            weights: In the order of the network's trainable variables.
            batches: (images [B, H, W, C], labels [B]).
            on_batch: Called after each batch; may raise.
        """
        loss, hits, total = 0.0, 0, 0
        for x, y, image in _with_places(batches):
            losses, right = self._measure(list(weights), self._state, x, y, image)
            loss += float(np.sum(losses.numpy(), dtype=np.float64))
            hits += int(np.sum(right))
            total += len(y)
            on_batch()
        return Height(loss / total, hits / total)

    def gradient(
        self, weights: Weights, batches: Sequence[Labelled], on_batch: Callable[[], None] = lambda: None
    ) -> list[tf.Tensor]:
        """The gradient of height().loss in the weights, up to a factor."""
        total = [tf.zeros_like(w) for w in weights]
        for x, y, image in _with_places(batches):
            part = self._ascend(list(weights), self._state, x, y, image)
            total = [t + p for t, p in zip(total, part, strict=True)]
            on_batch()
        return total

    def craft(self, batches: Sequence[Labelled], on_batch: Callable[[], None] = lambda: None) -> list[Labelled]:
        """The batches with images replaced by adversarial ones of the network as it is."""
        result = []
        for x, y, image in _with_places(batches):
            result.append((self._craft(self.weights, self._state, x, y, image), y))
            on_batch()
        return result

    def without_attack(self) -> "Passes":
        """The same network and loss at images as they are given."""
        return Passes(self._network, Clean(), seed=self._seed, loss=self._loss)

    def _craft_pure(self, weights: Weights, state: Weights, x: tf.Tensor, y: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        predict = bind(self._network, weights, state, training=False)
        return self._attack(untargeted(predict, y), x, ImageSeeds(self._key, image))

    def _measure_pure(
        self, weights: Weights, state: Weights, x: tf.Tensor, y: tf.Tensor, image: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        predict = bind(self._network, weights, state, training=False)
        x_adv = self._craft_pure(weights, state, x, y, image)
        return self._loss(predict(x_adv), y), robust(predict, x, x_adv, y)

    def _gradient_pure(
        self, weights: Weights, state: Weights, x: tf.Tensor, y: tf.Tensor, image: tf.Tensor
    ) -> list[tf.Tensor]:
        adversarial = self._craft_pure(weights, state, x, y, image)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logits = bind(self._network, weights, state, training=False)(adversarial)
            loss = tf.reduce_sum(self._loss(logits, y))
        gradients: list[tf.Tensor] = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradients


def _with_places(batches: Sequence[Labelled]) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """The batches, each with the places of its images among all, [B]."""
    first = 0
    for x, y in batches:
        yield x, y, tf.range(first, first + len(y), dtype=tf.int64)
        first += len(y)


def random_direction(weights: Weights, seed: noise.Seed) -> list[tf.Tensor]:
    """A Gaussian direction, filter-normalised (Li et al., NeurIPS 2018, section 4; Wu et al., NeurIPS 2020, section 3).

    Every filter of the direction (last axis: output channel or neuron) gets the length of that filter of
    the weights. Tensors of rank 1 (biases, BatchNorm) do not move.
    """
    return [_filter_normalise(w, seed.fold(layer)) for layer, w in enumerate(weights)]


def awp_direction(weights: Weights, gradient: Gradient, seed: noise.Seed) -> list[tf.Tensor]:
    """The direction of adversarial weight perturbation: layer by layer ||w|| g / ||g||.

    Args:
        weights: Where it starts.
        gradient: Of the adversarial loss.
        seed: What the search's noise depends on.
    """
    (nearby,) = AWP(gamma=1.0, steps=1)(weights, gradient, seed)
    return [n - w for n, w in zip(nearby, weights, strict=True)]


def shift(weights: Weights, directions: Sequence[Weights], coefficients: Sequence[float]) -> list[tf.Tensor]:
    """W + sum of coefficient x direction; nothing is written to a variable."""
    result = list(weights)
    for coefficient, direction in zip(coefficients, directions, strict=True):
        result = [w + tf.cast(coefficient, w.dtype) * d for w, d in zip(result, direction, strict=True)]
    return result


def _filter_normalise(weight: tf.Tensor, seed: noise.Seed) -> tf.Tensor:
    if weight.shape.rank < 2:
        return tf.zeros_like(weight)
    direction = noise.normal(seed, weight)
    axes = list(range(weight.shape.rank - 1))
    size, own = (tf.sqrt(tf.reduce_sum(tf.square(t), axes, keepdims=True)) for t in (weight, direction))
    return direction * size / (own + 1e-10)
