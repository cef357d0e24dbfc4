"""Directions in the space of the weights along which a loss is drawn, each as long as the weights themselves."""

from collections.abc import Sequence

import tensorflow as tf

from awp_tf import noise
from awp_tf.perturbations import AWP
from awp_tf.types import Gradient, Weights


def random_direction(weights: Weights, seed: noise.Seed) -> list[tf.Tensor]:
    """A Gaussian direction, filter-normalised (Li et al., NeurIPS 2018, section 4; Wu et al., NeurIPS 2020, section 3).

    Every filter of the direction (last axis: output channel or neuron) gets the length of that filter of
    the weights. Tensors of rank 1 (biases, BatchNorm) do not move.
    """
    return [_filter_normalised(w, seed.fold(layer)) for layer, w in enumerate(weights)]


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


def _filter_normalised(weight: tf.Tensor, seed: noise.Seed) -> tf.Tensor:
    if weight.shape.rank < 2:
        return tf.zeros_like(weight)
    direction = noise.normal(seed, weight)
    axes = list(range(weight.shape.rank - 1))
    size, own = (tf.sqrt(tf.reduce_sum(tf.square(t), axes, keepdims=True)) for t in (weight, direction))
    return direction * size / (own + 1e-10)
