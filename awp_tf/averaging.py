"""Which weights a run evaluates and saves: the latest ones, or their moving average."""

from typing import Protocol

import keras
import tensorflow as tf

from awp_tf.infra.errors import fraction


class Averaging(Protocol):
    """Owns the network that is evaluated and saved."""

    network: keras.Model

    def update(self, step: tf.Tensor) -> None:
        """To be called after training step `step` (0-based)."""
        ...


class Latest:
    """The network under training itself."""

    def __init__(self, network: keras.Model) -> None:
        """Wraps network."""
        self.network = network

    def update(self, step: tf.Tensor) -> None:
        """Does nothing."""


class EMA:
    """An exponential moving average of all weights, BatchNorm statistics included.

    a <- d a + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), so early weights are soon forgotten.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.averaging import EMA
        >>> from awp_tf.networks import small_cnn
        >>> network = small_cnn(shape=(8, 8, 1), classes=2, width=2)
        >>> average = EMA(network, decay=0.999)
        >>> average.update(tf.constant(0))  # after step 0
        >>> average.network is network
        False
    """

    def __init__(self, network: keras.Model, decay: float = 0.999) -> None:
        """Averages network in a second network of the same kind.

        Args:
            network: The network under training, able to be cloned (functional or sequential).
            decay: In [0, 1).

        Raises:
            UserError: decay is not in [0, 1).
        """
        fraction("EMA.decay", decay)
        self._source = network
        self._decay = decay
        self.network = keras.models.clone_model(network)
        self.network.set_weights(network.get_weights())

    def update(self, step: tf.Tensor) -> None:
        """See Averaging."""
        t = tf.cast(step, tf.float64)
        decay = tf.minimum(tf.constant(self._decay, tf.float64), (1 + t) / (10 + t))
        for average, current in zip(self.network.weights, self._source.weights, strict=True):
            value = tf.convert_to_tensor(current.value)
            keep = tf.cast(decay, value.dtype)
            average.assign(keep * average + (1 - keep) * value)
