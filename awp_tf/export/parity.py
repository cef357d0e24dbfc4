"""Does what was written answer as the network does? Asked in a fresh process, which knows only the files.

    python -m awp_tf.export.parity SAVED_MODEL IMAGES.npz

IMAGES.npz holds "images" (uint8), the network's own "logits", and for the signature of each task its classes, as
"classes of task_1"; largest differences are printed as JSON.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.export.heads import Head
from awp_tf.export.signatures import BYTES, DEFAULT, FLOAT
from awp_tf.infra.errors import UserError
from awp_tf.infra.keras_layers import all_layers

_TOLERANCE, _TOLERANCE_16 = 1e-5, 2e-2
_CLASSES = "classes of "


def require_parity(
    folder: pathlib.Path, network: keras.Model, images: np.ndarray, heads: Sequence[Head] = ()
) -> dict[str, float]:
    """Compares every signature with the network, from a fresh process.

    Args:
        folder: Of the SavedModel.
        network: From [0, 1] images to logits.
        images: uint8 [N, H, W, C].
        heads: Each has to have a signature that answers with the logits of its classes.

    Returns:
        The largest difference by signature, relative to max(1, |logit|).

    Raises:
        UserError: One differs by more than rounding, or does not answer at all.
    """
    x = tf.cast(images, network.inputs[0].dtype) / 255
    given = folder.with_name(".parity.npz")
    try:
        with tf.device("CPU"):  # on both sides: a GPU's kernels differ by more than what is looked for
            logits = np.asarray(network(x, training=False), np.float64)
        classes = {_CLASSES + head.signature: np.array(head.classes) for head in heads}
        np.savez(given, allow_pickle=False, images=images, logits=logits, **classes)
        command = [sys.executable, "-m", "awp_tf.export.parity", str(folder), str(given)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        )
    finally:
        given.unlink(missing_ok=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{folder}: expected a SavedModel that loads and answers, but it fails: {reason}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    limit = tolerance(network)
    for name, difference in found.items():
        if not difference <= limit:
            raise UserError(
                f"{name}: expected the network's own answers, received others (a difference of {difference:.2g}, more "
                f"than {limit:g}); nothing was exported."
            )
    return found


def tolerance(network: keras.Model) -> float:
    """The largest difference that is rounding, relative to max(1, |logit|), where logits are of the order of 1 to 10.

    A network that computes in 16 bits may be fused in other ways. What a network computes in is said by its layers:
    the network itself is made anew when it is read from a file, and says float32.
    """
    halves = any(layer.compute_dtype in ("bfloat16", "float16") for layer in all_layers(network))
    return _TOLERANCE_16 if halves else _TOLERANCE


def differences(
    folder: str, images: np.ndarray, logits: np.ndarray, heads: Mapping[str, np.ndarray]
) -> Mapping[str, float]:
    """Loads a SavedModel and asks each signature.

    Args:
        folder: Of the SavedModel.
        images: uint8 [N, H, W, C].
        logits: The network's own, [N, K].
        heads: The classes of each task, by signature.

    Returns:
        The largest difference by signature; infinite for a task without one.
    """
    loaded = tf.saved_model.load(folder)
    inputs = {
        DEFAULT: {"images": tf.constant(images)},
        BYTES: {"image_bytes": tf.stack([tf.io.encode_png(image) for image in images])},
        FLOAT: {"images": tf.cast(images, tf.float64) / 255},
    }
    found = dict.fromkeys(heads, float("inf"))
    for name, function in loaded.signatures.items():
        specs = function.structured_input_signature[1]
        given = inputs[DEFAULT if name in heads else name]
        answer = function(
            **{key: tf.cast(x, specs[key].dtype) if x.dtype != tf.string else x for key, x in given.items()}
        )
        found[name] = _difference(answer, logits, heads.get(name, np.arange(logits.shape[-1])))
    return found


def _difference(answer: Mapping[str, tf.Tensor], logits: np.ndarray, classes: np.ndarray) -> float:
    """The largest, over everything a signature answers; infinite where classes or shapes are others."""
    logits = logits[:, classes]
    expected = {"logits": logits, "probabilities": tf.nn.softmax(logits).numpy()}
    ids = answer["class_ids"].numpy()
    if answer["logits"].shape != logits.shape or ids.shape != logits.shape[:1]:
        return float("inf")
    if not np.array_equal(ids, classes[answer["logits"].numpy().argmax(axis=-1)]):
        return float("inf")
    parts = [np.abs(answer[key].numpy() - value) / np.maximum(1, np.abs(value)) for key, value in expected.items()]
    return float(max(part.max() for part in parts))


if __name__ == "__main__":
    with np.load(sys.argv[2], allow_pickle=False) as data:
        of_tasks = {name.removeprefix(_CLASSES): data[name] for name in data.files if name.startswith(_CLASSES)}
        print(json.dumps(differences(sys.argv[1], data["images"], data["logits"], of_tasks)))
