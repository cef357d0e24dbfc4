"""Which weights a run evaluates and saves: the latest ones, or their average."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, at_least, fraction, one_of
from awp_tf.recalibration import Recalibration

Batches = Iterable[Sequence[tf.Tensor]]  # of which the first part is images [B, H, W, C]


class Averaging(Protocol):
    """Owns the network that is evaluated and saved."""

    network: keras.Model

    def update(self, step: tf.Tensor, epoch: tf.Tensor) -> None:
        """To be called after training step `step` (0-based), when `epoch` epochs are over (float64)."""
        ...

    def refresh(self, batches: Batches, epoch: int) -> None:
        """To be called when `epoch` epochs are over, before the network is measured or saved.

        Args:
            batches: Of the epoch that is over, as they were trained on; read only where they are needed.
            epoch: How many.
        """
        ...


class Latest:
    """The network under training itself."""

    def __init__(self, network: keras.Model) -> None:
        """Wraps network."""
        self.network = network

    def update(self, step: tf.Tensor, epoch: tf.Tensor) -> None:
        """Does nothing."""

    def refresh(self, batches: Batches, epoch: int) -> None:
        """Does nothing."""


class _Average:
    """A second network of the same kind, and what its BatchNorm statistics are."""

    def __init__(self, network: keras.Model, statistics: str) -> None:
        one_of(f"{type(self).__name__}.statistics", statistics, ("averaged", "recalibrated"))
        self._source = network
        self.network = keras.models.clone_model(network)
        self.network.set_weights(network.get_weights())
        self._recalibrate = Recalibration(self.network) if statistics == "recalibrated" else lambda batches: None

    def _blend(self, share: tf.Tensor) -> None:
        """All variables become share (float64) of themselves and the rest of the network under training."""
        for average, current in zip(self.network.weights, self._source.weights, strict=True):
            value = tf.convert_to_tensor(current.value)
            keep = tf.cast(share, value.dtype)
            average.assign(keep * average + (1 - keep) * value)


class EMA(_Average):
    """An exponential moving average of all weights, BatchNorm statistics included.

    a <- d a + (1 - d) w with d = min(decay, (1 + t) / (10 + t)), so early weights are soon forgotten.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.averaging import EMA
        >>> from awp_tf.networks import small_cnn
        >>> network = small_cnn(shape=(8, 8, 1), classes=2, width=2)
        >>> average = EMA(network, decay=0.999)
        >>> average.update(tf.constant(0), tf.constant(0.1))  # after step 0, a tenth of an epoch
        >>> average.network is network
        False
    """

    def __init__(self, network: keras.Model, decay: float = 0.999, statistics: str = "averaged") -> None:
        """Averages network in a second network of the same kind.

        Args:
            network: The network under training, able to be cloned (functional or sequential).
            decay: In [0, 1).
            statistics: Of BatchNorm: "averaged" like the weights, or "recalibrated" on training images.

        Raises:
            UserError: A setting makes no sense.
        """
        fraction("EMA.decay", decay)
        super().__init__(network, statistics)
        self._decay = decay

    def update(self, step: tf.Tensor, epoch: tf.Tensor) -> None:
        """See Averaging."""
        t = tf.cast(step, tf.float64)
        self._blend(tf.minimum(tf.constant(self._decay, tf.float64), (1 + t) / (10 + t)))

    def refresh(self, batches: Batches, epoch: int) -> None:
        """See Averaging."""
        self._recalibrate(batches)


class SWA(_Average):
    """Stochastic weight averaging: the mean of the weights after each epoch that begins at `start` or later.

    Izmailov et al., UAI 2018, Algorithm 1, with one epoch as cycle length. Before the first of them, the network is the
    one under training as it stood after the last epoch. Which weights the mean holds follows from the epoch alone.
    """

    def __init__(
        self, network: keras.Model, *, epochs: int, start: float = 0.75, statistics: str = "recalibrated"
    ) -> None:
        """Averages network in a second network of the same kind.

        Args:
            network: The network under training, able to be cloned (functional or sequential).
            epochs: The length of the run.
            start: Which part of the run, in [0, 1), is over before the mean begins.
            statistics: Of BatchNorm: "recalibrated" on training images, or "averaged" like the weights.

        Raises:
            UserError: A setting makes no sense, or no epoch begins at start or later.
        """
        at_least("SWA.epochs", epochs, 1)
        fraction("SWA.start", start)
        self._before = math.ceil(round(start * epochs, 9))  # epochs; 0.07 * 100 is not 7
        if self._before >= epochs:
            raise UserError(
                f"SWA.start: expected at most {1 - 1 / epochs:.4g}, when the last of {epochs} epochs begins, "
                f"received {start}."
            )
        super().__init__(network, statistics)

    def update(self, step: tf.Tensor, epoch: tf.Tensor) -> None:
        """See Averaging."""
        count = tf.maximum(epoch - self._before, 1)  # of the weights in the mean, once it holds these
        whole = tf.cast(epoch == tf.floor(epoch), tf.float64)
        self._blend(1 - whole / count)

    def refresh(self, batches: Batches, epoch: int) -> None:
        """See Averaging; a network that is no mean yet keeps its statistics."""
        if epoch > self._before:
            self._recalibrate(batches)
