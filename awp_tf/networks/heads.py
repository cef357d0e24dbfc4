"""New heads for networks that have been trained before, and which of their layers train on."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras

from awp_tf.infra.errors import UserError, at_least
from awp_tf.networks.layers import at_least_float32, torch_init

HEAD = "head"


def with_head(inputs: Any, features: Any, classes: int, *, name: str) -> keras.Model:
    """A network that ends with Dense(classes) on features [B, D].

    The head starts as PyTorch's Linear does, U(+-1/sqrt(D)), which is what Hendrycks et al. (ICML 2019,
    robustness/adversarial/tune.py) fine-tune from.

    Args:
        inputs: Symbolic images.
        features: Symbolic, computed from inputs.
        classes: How many logits.
        name: Of the network.
    """
    limit = features.shape[-1] ** -0.5
    taken = {layer.name for layer in keras.Model(inputs, features).layers}
    head = keras.layers.Dense(
        classes,
        kernel_initializer=torch_init(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        dtype=at_least_float32(),
        name=next(free for i in itertools.count() if (free := f"{HEAD}_{i}" if i else HEAD) not in taken),
    )
    return keras.Model(inputs, head(features), name=name)


def train_last(network: keras.Model, count: int | None, *, name: str) -> None:
    """Leaves the last layers trainable and freezes the others, whose statistics stay, too.

    Args:
        network: Changed in place.
        count: How many layers with weights, the head included, BatchNorm too; None is all.
        name: Of this setting, for messages.

    Raises:
        UserError: count is no whole number >= 1, or there are not so many.
    """
    layers = list(with_weights(network))
    if count is not None:
        at_least(name, count, 1)
        if count > len(layers):
            raise UserError(f"{name}: expected at most the {len(layers)} layers of {network.name}, received {count}.")
    unfreeze(network)  # a file may hold layers that were frozen before
    for layer in layers[: -count if count else 0]:
        layer.trainable = False


def unfreeze(network: keras.Model) -> None:
    """Makes all layers trainable, those of networks inside of it, too."""
    network.trainable = False  # Keras passes on only what changes
    network.trainable = True


def with_weights(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers that have weights, in the order of the network, those inside of networks inside of it."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from with_weights(layer)
        elif layer.weights:
            yield layer
