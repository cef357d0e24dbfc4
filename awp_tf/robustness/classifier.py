"""What is evaluated: any network that maps images in [0, 1] to logits."""

import dataclasses
import hashlib
import pathlib

import keras
import tensorflow as tf

import awp_tf.networks  # noqa: F401  (makes its layers known to Keras)
from awp_tf.attacks.objectives import Predict
from awp_tf.checks import UserError


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode.

    Attributes:
        name: For the report.
        predict: Images [B, H, W, C] in [0, 1] to logits [B, K].
        shape: Of an image, (H, W, C).
        classes: K.
        digest: Of the files it was read from; another network has another one.
        dtype: Of the images.
        parameters: How many numbers it holds; 0 where unknown.
    """

    name: str
    predict: Predict
    shape: tuple[int, ...]
    classes: int
    digest: str
    dtype: str = "float32"
    parameters: int = 0


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
        return of_keras(_keras_file(place), name=place.stem, digest=digest(place))
    raise UserError(f"--network: expected a .keras file or the folder of a SavedModel, received {path!r}.")


def of_keras(network: keras.Model, *, name: str = "", digest: str = "") -> Classifier:
    """A Keras network that is in memory.

    It is called as it is, not at frozen state, so that a layer which draws noise at evaluation draws
    anew in every call, as it would in use.

    Raises:
        UserError: It does not map [B, H, W, C] to [B, K].
    """
    inputs, outputs = network.inputs, network.outputs
    _require_classifier(
        name or network.name, [tuple(t.shape) for t in inputs or ()], [tuple(t.shape) for t in outputs or ()]
    )
    return Classifier(
        name=network.name,
        predict=lambda x: network(x, training=False),
        shape=tuple(inputs[0].shape[1:]),
        classes=int(outputs[0].shape[-1]),
        digest=digest,
        dtype=str(inputs[0].dtype),
        parameters=int(network.count_params()),
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


def _keras_file(path: pathlib.Path) -> keras.Model:
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises errors of many kinds for foreign and damaged files
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"--network: {path} cannot be read as a Keras network; {reason}") from error


def _saved_model(path: pathlib.Path) -> Classifier:
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # so does TensorFlow
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"--network: {path} cannot be read as a SavedModel; {reason}") from error
    name = next((name for name in ("serving_default", "serve") if name in loaded.signatures), None)
    if name is None:
        found = ", ".join(loaded.signatures) or "none"
        raise UserError(f"--network: {path}: expected a signature serving_default or serve, received {found}.")
    signature = loaded.signatures[name]
    inputs = list(signature.structured_input_signature[1].items())
    outputs = list(signature.structured_outputs.items())
    _require_classifier(path, [tuple(s.shape) for _, s in inputs], [tuple(s.shape) for _, s in outputs])
    (key, spec), (output, logits) = inputs[0], outputs[0]
    if not spec.dtype.is_floating:
        raise UserError(f"--network: {path}: expected an input of floats in [0, 1], received {spec.dtype.name}.")

    def predict(x: tf.Tensor) -> tf.Tensor:
        return signature(**{key: x})[output]

    predict.keeps = loaded  # type: ignore[attr-defined]  # the variables live as long as this object
    parameters = sum(int(tf.size(v)) for v in getattr(loaded, "variables", ()))
    return Classifier(
        path.name, predict, tuple(spec.shape[1:]), int(logits.shape[-1]), digest(path), spec.dtype.name, parameters
    )


def _require_classifier(name: object, inputs: list[tuple], outputs: list[tuple]) -> None:
    fit = len(inputs) == len(outputs) == 1 and len(inputs[0]) == 4 and len(outputs[0]) == 2
    if not fit or None in inputs[0][1:] or not outputs[0][1] or outputs[0][1] < 2:
        raise UserError(
            f"{name}: expected a network from images [B, H, W, C] of fixed size to logits [B, K], K >= 2, "
            f"received one from {inputs} to {outputs}."
        )
