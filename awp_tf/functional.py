"""A network as a pure function of explicit weights: nothing is read from or written to a variable."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

Predict = Callable[[tf.Tensor], tf.Tensor]
Tensors = Sequence[tf.Tensor]


def bind(network: keras.Model, weights: Tensors, state: Tensors, *, training: bool) -> Predict:
    """The network at weights and state: images [B, H, W, C] to logits [B, K].

    In training mode BatchNorm uses the statistics of the batch; no running statistic moves.
    """

    def predict(x: tf.Tensor) -> tf.Tensor:
        return network.stateless_call(weights, state, x, training=training)[0]

    return predict


def frozen(network: keras.Model) -> Predict:
    """The network as it stands, in evaluation mode."""
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)
    return bind(network, weights, state, training=False)


class Recorder:
    """Like bind in training mode, but each call moves the running statistics held in `state`.

    For one trace of one function only: do not carry it across tf.function boundaries or into loops.

    Attributes:
        state: The values of the network's non-trainable variables after the calls so far.
    """

    def __init__(self, network: keras.Model, weights: Tensors, state: Tensors) -> None:
        """Binds network to weights and state, in the order of its (non_)trainable_variables."""
        self._network = network
        self._weights = list(weights)
        self.state = list(state)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Logits of x [B, H, W, C], shape [B, K]."""
        logits, self.state = self._network.stateless_call(self._weights, self.state, x, training=True)
        return logits


def read(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """The values of variables as tensors (the local copy, inside a replica)."""
    return [tf.convert_to_tensor(v.value) for v in variables]
