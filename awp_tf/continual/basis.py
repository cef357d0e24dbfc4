"""Gradient bases (GPM): the directions of each layer's inputs that earlier tasks need.

A layer's weight gradient lies in the span of its inputs, so a step orthogonal to the inputs of earlier tasks leaves
what the layer answers to them as it was (Saha et al., ICLR 2021, section 4).
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least, not_negative
from awp_tf.types import Weights


@dataclasses.dataclass(frozen=True)
class Basis:
    """How the bases are found after a task.

    Attributes:
        threshold: Share of the energy of a layer's inputs that its basis keeps after the first task.
        increase: Added to that after each further task.
        samples: From so many images.
        from_task: False: from images of the memory, anew after each task (FS-DGPM). True: from training images of the
            task alone, added to the basis that is there (GPM).
    """

    threshold: float = 0.97
    increase: float = 0.003
    samples: int = 125
    from_task: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative("Basis.threshold", self.threshold)
        not_negative("Basis.increase", self.increase)
        at_least("Basis.samples", self.samples, 1)
        if self.threshold > 1:
            raise UserError(f"Basis.threshold: expected a share in 0..1, received {self.threshold}.")

    def layers(self, network: keras.Model, multi_head: bool) -> list[keras.layers.Layer]:
        """The layers of a network that get a basis: convolutions and dense ones, but no head that tasks do not share.

        Raises:
            UserError: There are none.
        """
        layers = [layer for layer in network.layers if _unfold(layer) is not None and layer.trainable]
        if multi_head and layers and layers[-1] is network.layers[-1]:
            layers = layers[:-1]
        if not layers:
            raise UserError(f"{network.name}: expected Dense or Conv2D layers at its top level to find bases for.")
        return layers

    def energy(self, task: int) -> float:
        """The share to keep after a task, counted from 0; never all of it."""
        return min(self.threshold + task * self.increase, 1 - 1e-11)


@dataclasses.dataclass(frozen=True)
class NoBasis(Basis):
    """No bases: the null object."""

    def layers(self, network: keras.Model, multi_head: bool) -> list[keras.layers.Layer]:
        """None."""
        return []


class GradientBases(tf.Module):
    """An orthonormal basis U [d, k] of the inputs of each layer, d its fan-in.

    Attributes:
        layers: Their names.
        places: Of their kernels among the trainable variables.
        values: U of each layer, [d, d]; the columns from k on are 0, so that shapes stay while bases grow.
        begun: 1 once there are bases, a float32 scalar.
    """

    def __init__(self, network: keras.Model, layers: Sequence[keras.layers.Layer]) -> None:
        """All are empty.

        Args:
            network: Whose inputs they span.
            layers: Dense or Conv2D.
        """
        super().__init__(name="gradient_bases")
        self.layers = [layer.name for layer in layers]
        paths = [variable.path for variable in network.trainable_variables]
        self.places = [paths.index(layer.kernel.path) for layer in layers]
        sizes = [int(np.prod(layer.kernel.shape[:-1])) for layer in layers]
        dtype = network.trainable_variables[0].dtype
        self.values = [tf.Variable(tf.zeros([size, size], dtype), trainable=False) for size in sizes]
        self.begun = tf.Variable(0.0, trainable=False, dtype=dtype)
        self._inputs_of = _inputs(network, layers)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(Directions kept, inputs) of each layer."""
        kept = [int(np.sum(np.any(value.numpy() != 0, axis=0))) for value in self.values]
        return {name: (k, value.shape[0]) for name, k, value in zip(self.layers, kept, self.values, strict=True)}

    def extend(self, images: np.ndarray, energy: float, *, anew: bool) -> None:
        """Finds bases that keep a share of the energy of the inputs.

        Args:
            images: [N, H, W, C] in [0, 1]; the network is in evaluation mode.
            energy: The share, of the sum of squares.
            anew: Whether what was kept before is forgotten.
        """
        for value, gram in zip(self.values, self._inputs_of(images), strict=True):
            before = value.numpy()[:, :0] if anew else _kept(value.numpy())
            found = extend(before.astype(np.float64), gram, energy)
            value.assign(np.pad(found, [(0, 0), (0, len(gram) - found.shape[1])]))
        self.begun.assign(1.0)

    def project(self, gradients: Weights, importance: Weights) -> list[tf.Tensor]:
        """P(G) = U diag(importance) U' G for the kernels that have a basis, the others as they are.

        Args:
            gradients: One for each trainable variable.
            importance: Of each direction, [d] for each basis.
        """
        return project([value.value() for value in self.values], importance, gradients, self.places)


def project(bases: Weights, importance: Weights, gradients: Weights, places: Sequence[int]) -> list[tf.Tensor]:
    """As GradientBases.project, at explicit bases [d, d]; kernels are [..., out] with d numbers for each output."""
    result = list(gradients)
    for u, weight, place in zip(bases, importance, places, strict=True):
        gradient = gradients[place]
        flat = tf.reshape(gradient, [u.shape[0], -1])
        inside = tf.matmul(u, weight[:, tf.newaxis] * tf.matmul(u, flat, transpose_a=True))
        result[place] = tf.reshape(inside, tf.shape(gradient))  # of tokens it is not known before
    return result


def extend(basis: np.ndarray, gram: np.ndarray, energy: float) -> np.ndarray:
    """Adds the fewest directions with which a basis keeps a share of the energy of some inputs.

    Singular vectors of the inputs R [N, d] are eigenvectors of R'R, squares of singular values its eigenvalues
    (Saha et al., ICLR 2021, eqs. 5 to 9; what the basis keeps already counts first).

    Args:
        basis: Orthonormal, [d, k]; k may be 0.
        gram: R'R, [d, d].
        energy: The share.

    Returns:
        An orthonormal basis [d, k'], k' >= k, whose first k columns are those of basis.
    """
    total = np.trace(gram)
    if total <= 0:  # the layer before is silent: there is nothing to keep
        return basis
    outside = np.eye(len(gram)) - basis @ basis.T
    values, vectors = np.linalg.eigh(outside @ gram @ outside)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    room = len(gram) - basis.shape[1]
    share = (total - values.sum() + np.concatenate([[0.0], np.cumsum(values)])) / max(total, 1e-300)
    count = min(int(np.searchsorted(share, energy)), room)
    return np.concatenate([basis, vectors[:, :count]], axis=1)


def _kept(value: np.ndarray) -> np.ndarray:
    return value[:, np.any(value != 0, axis=0)]


def _inputs(network: keras.Model, layers: Sequence[keras.layers.Layer]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function of images: R'R of each layer's inputs R, which has a row for each place where a kernel is applied."""
    if not layers:
        return lambda images: []
    seen = keras.Model(network.inputs[0], [layer.input for layer in layers])
    unfold = [_unfold(layer) for layer in layers]

    @tf.function(autograph=False)
    def grams(x: tf.Tensor) -> list[tf.Tensor]:
        rows = [tf.cast(f(value), tf.float64) for f, value in zip(unfold, _list(seen(x, training=False)), strict=True)]  # type: ignore[misc]
        return [tf.matmul(r, r, transpose_a=True) for r in rows]

    def of(images: np.ndarray) -> list[np.ndarray]:
        parts = [
            grams(tf.cast(images[i : i + _AT_ONCE], network.inputs[0].dtype)) for i in range(0, len(images), _AT_ONCE)
        ]
        return [np.sum([gram.numpy() for gram in each], axis=0) for each in zip(*parts, strict=True)]

    return of


def _unfold(layer: keras.layers.Layer) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Inputs of a layer to rows [N, d], d in the order of its kernel; None for layers that have no basis."""
    if isinstance(layer, keras.layers.Dense):
        return lambda x: tf.reshape(x, [-1, x.shape[-1]])
    if isinstance(layer, keras.layers.Conv2D) and layer.groups == 1:
        return lambda x: _patches(x, layer)
    return None


def _patches(x: tf.Tensor, layer: keras.layers.Conv2D) -> tf.Tensor:
    size, stride, rate = ([1, *pair, 1] for pair in (layer.kernel_size, layer.strides, layer.dilation_rate))
    found = tf.image.extract_patches(x, size, stride, rate, layer.padding.upper())
    return tf.reshape(found, [-1, found.shape[-1]])


def _list(value: object) -> list[tf.Tensor]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


_AT_ONCE = 64  # images: patches take kernel-size times the memory of activations
