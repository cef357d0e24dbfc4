"""What networks of continual learning end with: dense layers without biases.

Without a bias, a layer's gradient lies in the span of its inputs, which is what gradient bases are about.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from awp_tf.networks.layers import CHANNELS_LAST, at_least_float32

Initializer = Callable[[], keras.initializers.Initializer]


def dense_head(
    x: Any, hidden: Mapping[str, int], classes: int, initializer: Initializer, *, dropout: float = 0.0
) -> Any:
    """Flattens, then hidden dense layers with ReLU, then logits [B, K].

    Args:
        x: Symbolic, [B, H, W, C].
        hidden: Neurons of each layer, by its name.
        classes: K.
        initializer: Makes one for each layer.
        dropout: After each hidden layer; 0 is no such layer.
    """
    x = keras.layers.Flatten(CHANNELS_LAST, name="flatten")(x)
    for name, size in hidden.items():
        x = keras.layers.Dense(size, use_bias=False, kernel_initializer=initializer(), name=name)(x)
        x = keras.layers.ReLU(name=f"{name}.relu")(x)
        x = keras.layers.Dropout(dropout, name=f"{name}.dropout")(x) if dropout else x
    settings = {"use_bias": False, "dtype": at_least_float32(), "name": "logits"}
    return keras.layers.Dense(classes, kernel_initializer=initializer(), **settings)(x)
