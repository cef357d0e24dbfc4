"""A Keras model that delegates everything but training to another one."""

from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError


class Wrapper(keras.Model):
    """All but training is that of network: outputs, evaluation, metrics, layers, and what is saved.

    Attributes:
        network: The model inside.
    """

    def __init__(self, network: keras.Model, name: str) -> None:
        """Wraps a built model."""
        super().__init__(name=name, dtype=network.dtype_policy)
        self.network = network
        self.built = True  # its only weights are those of the network, which is

    def call(self, x: Any, training: bool = False) -> Any:
        """What network makes of inputs."""
        return self.network(x, training=training)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """That of network."""
        return self.network.test_step(data)

    def predict_step(self, data: Any) -> Any:
        """That of network."""
        return self.network.predict_step(data)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of network."""
        return self.network.metrics

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Those of network, as callbacks expect."""
        return self.network.layers

    def get_layer(self, *args: Any, **kwargs: Any) -> keras.layers.Layer:
        """That of network."""
        return self.network.get_layer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What else is public about network: inputs, output, what a subclass adds."""
        if name.startswith("_") or name == "network":
            raise AttributeError(name)
        return getattr(self.network, name)

    def get_config(self) -> dict[str, Any]:
        """Raises UserError: there is nothing of ours to save."""
        raise UserError("expected the network to be saved, received what trains it; save or clone model.network.")

    def __reduce__(self) -> Any:
        """Pickles network, so that a History can be pickled, too."""
        return self.network.__reduce__()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves network alone: nothing of ours is inside; so does ModelCheckpoint."""
        self.network.save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Saves those of network, and its optimizer's."""
        self.network.save_weights(*args, **kwargs)

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Loads what save_weights saved, or a plain model of the same kind."""
        self.network.load_weights(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports network."""
        return self.network.export(*args, **kwargs)

    def summary(self, *args: Any, **kwargs: Any) -> Any:
        """That of network."""
        return self.network.summary(*args, **kwargs)

    def _symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Keras' hook before the first step; losses, metrics and optimizer are those of network."""
        self.network._symbolic_build(*args, **kwargs)  # noqa: SLF001
