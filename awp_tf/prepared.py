"""Weights made ready once for many calls: an attack calls a network often with the same ones."""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.keras_layers import all_layers

Prepared = dict[int, Any]
_NOW: contextvars.ContextVar[Prepared] = contextvars.ContextVar("_NOW")


def prepared(network: keras.Model, values: Iterable[tuple[keras.Variable, tf.Tensor]]) -> Prepared:
    """What the layers of a network make of their kernels, whatever the images (`prepared(kernel)` of a layer).

    Args:
        network: Whose layers are asked, those that have such a method.
        values: Of its variables; layers whose kernel is missing are left out.
    """
    of = {id(variable): value for variable, value in values}
    layers = [layer for layer in all_layers(network) if hasattr(layer, "prepared")]
    ready = {id(layer): layer.prepared(of[id(layer.kernel)]) for layer in layers if id(layer.kernel) in of}
    return {layer: each for layer, each in ready.items() if each is not None}


@contextlib.contextmanager
def using(ready: Prepared) -> Iterator[None]:
    """Layers that are called inside find what is ready for them."""
    token = _NOW.set(ready)
    try:
        yield
    finally:
        _NOW.reset(token)


def ready_of(layer: keras.layers.Layer) -> Any:
    """What is ready for a layer; None where nothing is."""
    return _NOW.get({}).get(id(layer))
