"""What is evaluated: any network that maps images in [0, 1] to logits."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

import awp_tf.networks  # noqa: F401  (makes its layers known to Keras)
from awp_tf.functional import read, require_classifier, require_network
from awp_tf.infra.errors import UserError, first_line
from awp_tf.loss_scale import scaling
from awp_tf.prepared import prepared, using
from awp_tf.types import Predict, Weights

_MOST_CONSTANTS = 20_000_000  # parameters; a graph has to stay below 2 GB, and is written more than once


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode.

    Attributes:
        name: For the report.
        predict: Images [B, H, W, C] in [0, 1] to logits [B, K].
        shape: Of an image, (H, W, C).
        classes: K.
        digest: Of the files it was read from, or of its weights; another network has another one.
        dtype: Of the images.
        parameters: How many numbers it holds; 0 where unknown.
        weights: What a graph may be handed instead of reading it from variables, which lie on one device; none where
            they are constants of the graph, or out of reach (a SavedModel's): then predict is all there is.
        at: Weights to predict.
    """

    name: str
    predict: Predict
    shape: tuple[int, ...]
    classes: int
    digest: str
    dtype: str = "float32"
    parameters: int = 0
    weights: Weights = dataclasses.field(default=(), compare=False, repr=False)
    at: Callable[[Weights], Predict] | None = dataclasses.field(default=None, compare=False, repr=False)

    def bind(self, weights: Weights) -> Predict:
        """The same network, its weights read from tensors: those of `weights`, or copies on another device."""
        return self.at(weights) if self.at and weights else self.predict


def load(path: str) -> Classifier:
    """A .keras file (read in safe mode), or the folder of a SavedModel.

    A SavedModel is called through `serving_default`, or `serve`: one float input in [0, 1], one output.

    Raises:
        UserError: There is no such network, it cannot be read, or it is no classifier of images.
    """
    place = pathlib.Path(path)
    if place.is_dir() and (place / "saved_model.pb").is_file():
        return _saved_model(place)
    if place.is_file() and place.suffix == ".keras":
        return of_keras(keras_file(place), name=place.stem, digest=digest(place))
    raise UserError(f"network: expected a .keras file or the folder of a SavedModel, received {path!r}.")


def of_keras(network: keras.Model, *, name: str = "", digest: str = "") -> Classifier:
    """A Keras network that is in memory.

    A layer which draws noise at evaluation draws anew in every call, as it would in use.

    Raises:
        UserError: It does not map [B, H, W, C] to [B, K].
    """
    require_network(network, name)
    inputs, outputs = network.inputs, network.outputs
    # A CPU's kernels keep constant weights in the order they like best: forward passes are up to a tenth faster.
    fixed = network.count_params() <= _MOST_CONSTANTS and not tf.config.list_physical_devices("GPU")
    values = [np.asarray(variable) for variable in network.variables] if fixed else []

    def at(weights: Sequence[tf.Tensor | np.ndarray]) -> Predict:
        return _in_full_precision(_in_evaluation_mode(network, weights), inputs[0].dtype)

    return Classifier(
        name=network.name,
        predict=at(values),
        shape=tuple(inputs[0].shape[1:]),
        classes=int(outputs[0].shape[-1]),
        digest=digest or _digest_of(network),
        dtype=_full(inputs[0].dtype),
        parameters=int(network.count_params()),
        weights=() if fixed else read(network.variables),
        at=at,
    )


def digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, or of all files below a folder."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(str(file.relative_to(path)).encode())
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def keras_file(path: pathlib.Path) -> keras.Model:
    """Reads a .keras file in safe mode.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many kinds for foreign and damaged files
        raise UserError(f"network: {path} cannot be read as a Keras network; {first_line(error)}") from error


def _saved_model(path: pathlib.Path) -> Classifier:
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # so does TensorFlow
        raise UserError(f"network: {path} cannot be read as a SavedModel; {first_line(error)}") from error
    name = next((name for name in ("serving_default", "serve") if name in loaded.signatures), None)
    if name is None:
        found = ", ".join(loaded.signatures) or "none"
        raise UserError(f"network: {path}: expected a signature serving_default or serve, received {found}.")
    signature = loaded.signatures[name]
    inputs = list(signature.structured_input_signature[1].items())
    outputs = list(signature.structured_outputs.items())
    require_classifier(str(path), [spec for _, spec in inputs], [spec for _, spec in outputs])
    (key, spec), (output, logits) = inputs[0], outputs[0]

    def call(x: tf.Tensor) -> tf.Tensor:
        return signature(**{key: x})[output]

    call.keeps = loaded  # type: ignore[attr-defined]  # the variables live as long as this object
    parameters = sum(int(tf.size(v)) for v in getattr(loaded, "variables", ()))
    return Classifier(
        name=path.name,
        predict=_in_full_precision(call, spec.dtype.name),
        shape=tuple(spec.shape[1:]),
        classes=int(logits.shape[-1]),
        digest=digest(path),
        dtype=_full(spec.dtype.name),
        parameters=parameters,
    )


def _in_evaluation_mode(network: keras.Model, values: Sequence[tf.Tensor | np.ndarray]) -> Predict:
    """The network in evaluation mode; in a graph with values for its variables, where there are any."""
    ready, by = prepared(network, zip(network.variables, values, strict=False)), scaling(network)

    def predict(x: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly() or not len(values):
            return by.leave(network(by.enter(x), training=False))
        tensors = list(zip(network.variables, map(tf.convert_to_tensor, values), strict=True))
        with using(ready), keras.StatelessScope(state_mapping=tensors) as scope:
            logits = by.leave(network(by.enter(x), training=False))
        # Whatever changes its state in a call, as a source of noise does, has to be called as it is.
        fixed = all(scope.get_current_value(variable) is tensor for variable, tensor in tensors)
        return logits if fixed else by.leave(network(by.enter(x), training=False))

    return predict


def _full(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _in_full_precision(predict: Predict, dtype: str) -> Predict:
    """Images and logits of 32 bits at least, also where the network itself takes and gives fewer."""
    return lambda x: tf.cast(predict(tf.cast(x, dtype)), _full(dtype))


def _digest_of(network: keras.Model) -> str:
    total = hashlib.sha256(network.to_json().encode())
    for value in network.get_weights():
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()
