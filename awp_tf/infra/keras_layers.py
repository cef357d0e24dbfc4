"""What Keras knows of a model's layers and has no public name for."""

import keras


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """A model, then all layers in it at any depth, each once."""
    layers: list[keras.Layer] = model._flatten_layers()  # noqa: SLF001
    return layers


def is_synchronized(model: keras.Layer) -> bool:
    """Whether a layer of it takes statistics of the batches of all replicas together."""
    return any(getattr(layer, "synchronized", False) for layer in all_layers(model))
