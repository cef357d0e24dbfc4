"""The network as an ONNX file: uint8 images of any number to logits, probabilities and classes."""

import pathlib
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf.export.export import read_network, write_card
from awp_tf.export.parity import tolerance
from awp_tf.export.settings import Servable
from awp_tf.infra.errors import UserError, optional
from awp_tf.infra.files import atomic_write
from awp_tf.networks.convolution import as_keras_does

OPSET = 18


def export_onnx(servable: Servable, base: str) -> pathlib.Path:
    """Writes <base>/<model>.onnx and its card, after comparing it with the network in ONNX Runtime.

    Args:
        servable: What.
        base: Where.

    Raises:
        UserError: The extra "onnx" is not installed, the file is there already, or it answers otherwise.
    """
    tf2onnx, onnxruntime = optional("tf2onnx", "onnx"), optional("onnxruntime", "onnx")
    path = pathlib.Path(base) / f"{servable.model}.onnx"
    if path.exists():
        raise UserError(f"{path}: is there already and is not overwritten; choose another model name or folder.")
    network = _in_float32(read_network(servable))

    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with as_keras_does():
            logits = tf.cast(network(tf.cast(images, network.inputs[0].dtype) / 255, training=False), tf.float32)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits), "class_ids": tf.argmax(logits, axis=-1)}

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error}); choose another folder.") from error
    with atomic_write(path) as part:
        tf2onnx.convert.from_function(answer, input_signature=[spec], opset=OPSET, output_path=str(part))
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        found = _difference(session, network, servable.images)
        if not found <= tolerance(network):
            raise UserError(f"{path}: expected the answers of the network itself, received others ({found:.2g}).")
        write_card(path.with_suffix(""), servable, {"onnx": found})  # first, so that no file is there without it
    return path


def _in_float32(network: keras.Model) -> keras.Model:
    """The same weights in layers that compute in float32: ONNX Runtime has no convolution in bfloat16."""
    text = network.to_json()
    plain = re.sub(r'"mixed_b?float16"', '"float32"', text)
    if plain == text:
        return network
    copy = keras.models.model_from_json(plain)
    copy.set_weights(network.get_weights())
    return copy


def _difference(session: Any, network: keras.Model, images: np.ndarray) -> float:
    """Largest difference of logits, relative to max(1, |logit|), at batch sizes 1 and N."""
    with tf.device("CPU"):  # on both sides: a GPU's kernels differ by more than what is looked for
        expected = np.asarray(network(tf.cast(images, network.inputs[0].dtype) / 255, training=False), np.float32)
    largest = 0.0
    for count in (1, len(images)):
        logits = session.run(["logits"], {"images": images[:count]})[0]
        largest = max(
            largest, float(np.max(np.abs(logits - expected[:count]) / np.maximum(1, np.abs(expected[:count]))))
        )
    return largest
