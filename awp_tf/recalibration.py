"""BatchNorm statistics of weights that no training step has seen: their mean over a pass through the images."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.functional import read
from awp_tf.infra.keras_layers import all_layers
from awp_tf.networks.layers import BatchNorm
from awp_tf.types import Weights

_KINDS = (BatchNorm, keras.layers.BatchNormalization)


class Recalibration:
    """Sets every running mean and variance of a network to the mean over batches of what each batch gives.

    Izmailov et al., UAI 2018, section 3.2: averaged weights need statistics of their own. A batch counts by its number
    of images. The passes are pure functions of the weights; until all are over, no variable changes. Of a layer that a
    network calls more than once, the last call counts.
    """

    def __init__(self, network: keras.Model) -> None:
        """Prepares network, which may have layers of our BatchNorm and of Keras' own, at any depth."""
        self._network = network
        self._layers = [layer for layer in all_layers(network) if isinstance(layer, _KINDS)]
        self._running = [v for layer in self._layers for v in (layer.moving_mean, layer.moving_variance)]
        self._of_batch = tf.function(self._statistics, autograph=False, reduce_retracing=True)

    def __call__(self, batches: Iterable[Sequence[tf.Tensor]]) -> None:
        """Takes one pass through batches, of which the first part is images [B, H, W, C]; none is read without need."""
        if not self._running:
            return
        weights, state = read(self._network.trainable_variables), read(self._network.non_trainable_variables)
        sums, images = [np.zeros(v.shape) for v in self._running], 0
        for x, *_ in batches:
            found = self._of_batch(weights, state, x)
            sums = [total + len(x) * np.asarray(value, np.float64) for total, value in zip(sums, found, strict=True)]
            images += len(x)
        for variable, total in zip(self._running, sums, strict=True):
            variable.assign(total / images)

    def _statistics(self, weights: Weights, state: Weights, x: tf.Tensor) -> list[tf.Tensor]:
        """Those of one batch: where a running statistic keeps nothing of itself, they are what it becomes."""
        with _forgetting(self._layers):
            _, after = self._network.stateless_call(weights, state, x, training=True)
        places = {id(v): place for place, v in enumerate(self._network.non_trainable_variables)}
        return [after[places[id(v)]] for v in self._running]


@contextlib.contextmanager
def _forgetting(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Layers whose running statistics are those of the last batch, while a pass is traced."""
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
