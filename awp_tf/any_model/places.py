"""Where in a Keras model an attack moves values: one of its inputs, or the output of one of its layers.

Either way a shift is added there: FGSM and PGD on features and pixels, or on embeddings, as in adversarial training of
text classifiers (Miyato et al., ICLR 2017) and FreeLB (Zhu et al., ICLR 2020).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError
from awp_tf.infra.keras_layers import all_layers

Call = Callable[[Any], Any]  # a model in training mode: inputs to outputs


class Place(Protocol):
    """Where a shift is added."""

    def read(self, call: Call, inputs: Any) -> tf.Tensor:
        """The values there, [B, ...] in at least 32 bits.

        Raises:
            UserError: There are none, or they are whole numbers.
        """
        ...

    def shifted(self, call: Call, inputs: Any, shift: tf.Tensor) -> Any:
        """The model's outputs once shift [B, ...] is added there."""
        ...


class InputPlace:
    """One input of a model."""

    def __init__(self, name: str, index: int | None) -> None:
        """Creates it.

        Args:
            name: The key among inputs that are a dict.
            index: Its place among flat inputs, where the model says it; None leaves the name alone to decide.
        """
        self._name, self._index = name, index

    def read(self, call: Call, inputs: Any) -> tf.Tensor:
        """See Place."""
        leaves = keras.tree.flatten(inputs)
        value = leaves[self._find(inputs, len(leaves))]
        if not tf.as_dtype(value.dtype).is_floating:
            raise UserError(
                f"on: expected an input of floats, received {self._name!r} of {tf.as_dtype(value.dtype).name}, which "
                "cannot move by a little; name the layer that makes floats of it: an Embedding, a Rescaling."
            )
        return _wide(value)

    def shifted(self, call: Call, inputs: Any, shift: tf.Tensor) -> Any:
        """See Place."""
        leaves = keras.tree.flatten(inputs)
        index = self._find(inputs, len(leaves))
        leaves[index] += tf.cast(shift, leaves[index].dtype)
        return call(keras.tree.pack_sequence_as(inputs, leaves))

    def _find(self, inputs: Any, count: int) -> int:
        if isinstance(inputs, dict) and self._name in inputs:
            tagged = {key: keras.tree.map_structure(lambda _, k=key: k, value) for key, value in inputs.items()}
            return int(keras.tree.flatten(tagged).index(self._name))
        if self._index is None or self._index >= count:
            known = f"the keys {', '.join(map(str, inputs))}" if isinstance(inputs, dict) else f"{count} inputs"
            raise UserError(
                f"on: expected the name of an input or a layer, received {self._name!r}; there are {known}."
            )
        return self._index


class LayerPlace:
    """The output of one layer, which a pass goes through once."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        """Wraps a layer of the model."""
        self._layer = layer

    def read(self, call: Call, inputs: Any) -> tf.Tensor:
        """See Place."""
        with self._changed(lambda output: output) as outputs:
            call(inputs)
        if len(outputs) != 1 or not tf.is_tensor(outputs[0]):
            found = f"{len(outputs)} times" if len(outputs) != 1 else "once, and gives several tensors"
            raise UserError(
                f"on: expected a layer with one tensor as output that is called once, received {self._layer.name!r}, "
                f"which was called {found}."
            )
        return _wide(outputs[0])

    def shifted(self, call: Call, inputs: Any, shift: tf.Tensor) -> Any:
        """See Place."""
        with self._changed(lambda output: output + tf.cast(shift, output.dtype)):
            return call(inputs)

    @contextlib.contextmanager
    def _changed(self, change: Callable[[tf.Tensor], tf.Tensor]) -> Iterator[list[tf.Tensor]]:
        """While a pass is traced, the layer's outputs are changed; gives what they were before."""
        outputs, plain = [], self._layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs.append(plain(*args, **kwargs))
            return change(outputs[-1])

        # Past Keras' own bookkeeping of attributes: this one is gone before anything could be saved.
        object.__setattr__(self._layer, "call", call)
        try:
            yield outputs
        finally:
            object.__delattr__(self._layer, "call")


def place(model: keras.Model, name: str | None) -> Place:
    """The place of that name in a model; None is its only input.

    Raises:
        UserError: There is no such input or layer.
    """
    inputs = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    layers = {layer.name: layer for layer in all_layers(model)[1:]}
    layers = {n: layer for n, layer in layers.items() if not isinstance(layer, keras.layers.InputLayer)}
    if name is None:
        if len(inputs) != 1:
            raise UserError(f"on: expected the name of what is attacked, one of {', '.join([*inputs, *layers])}.")
        name = inputs[0]
    keys = list(model.input) if isinstance(getattr(model, "input", None), dict) else []
    if name in inputs:
        return InputPlace(name, inputs.index(name))
    if name in layers and name not in keys:
        return LayerPlace(layers[name])
    if inputs and name not in keys:
        raise UserError(
            f"on: expected the name of an input or a layer, one of {', '.join([*inputs, *layers])}; received {name!r}."
        )
    return InputPlace(name, None)


def _wide(value: tf.Tensor) -> tf.Tensor:
    """At least 32 bits: a step of an attack can be too small for 16."""
    return value if value.dtype == tf.float64 else tf.cast(value, tf.float32)
