"""What TF Serving reads: version folders, there whole or not at all; warm-up requests; examples of configurations."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from awp_tf.export.signatures import BYTES, DEFAULT
from awp_tf.infra.errors import UserError, at_least, optional
from awp_tf.infra.files import write_text
from awp_tf.infra.result_folder import lock

WARMUP = "assets.extra/tf_serving_warmup_requests"
_MOST_RECORDS = 1000  # TF Serving reads no more
_STAGING = ".staging"  # a server looks at names that are numbers only


def versions(model: pathlib.Path) -> list[int]:
    """The versions that are there, rising."""
    return sorted(int(path.name) for path in model.iterdir() if path.name.isdigit()) if model.is_dir() else []


@contextlib.contextmanager
def staging(model: pathlib.Path, version: int | None, keep: int | None) -> Iterator[tuple[pathlib.Path, int]]:
    """Gives a folder to write to and its version number; on leaving without error it gets that name at once.

    Args:
        model: <base>/<model>.
        version: Its number; None is the next free one.
        keep: How many versions stay, the newest; None keeps all.

    Raises:
        UserError: The version is there already, or the folder cannot be written.
    """
    check_version(model, version)
    if keep is not None:
        at_least("keep", keep, 1)
    fresh = not model.exists()
    with lock(model):
        try:
            number = max(versions(model), default=0) + 1 if version is None else version
            folder = model / _STAGING
            shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
            folder.mkdir()
            try:
                yield folder, number
                os.rename(folder, model / str(number))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            if fresh and not versions(model):
                shutil.rmtree(model, ignore_errors=True)  # nothing stays of a first export that failed
            raise
        for old in versions(model)[: -keep if keep else 0]:
            if old != number:
                shutil.rmtree(model / str(old))


def check_version(model: pathlib.Path, version: int | None) -> None:
    """Raises UserError unless version is None, or a whole number >= 1 that is not there yet."""
    if version is None:
        return
    at_least("version", version, 1)
    if (model / str(version)).exists():
        raise UserError(f"version: {model / str(version)} is there already and is not overwritten; choose another.")


def write_warmup(
    folder: pathlib.Path, model: str, images: np.ndarray, batch_sizes: Sequence[int], tasks: Sequence[str] = ()
) -> None:
    """Requests that a server sends itself before it answers others: pixels, files and tasks at every batch size.

    Args:
        folder: Of the version.
        model: Its name.
        images: uint8 [N, H, W, C], repeated as needed.
        batch_sizes: As many as fit in 1,000 requests.
        tasks: Signatures of tasks.

    Raises:
        UserError: The extra "serving" is not installed.
    """
    predict_pb2 = optional("tensorflow_serving.apis.predict_pb2", "serving")
    prediction_log_pb2 = optional("tensorflow_serving.apis.prediction_log_pb2", "serving")
    path = folder / WARMUP
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in list(batch_sizes)[: _MOST_RECORDS // (2 + len(tasks))]:
            places = np.arange(size) % len(images)
            pixels = tf.make_tensor_proto(images[places])
            for signature, name, values in (
                (DEFAULT, "images", pixels),
                (BYTES, "image_bytes", tf.make_tensor_proto(encoded[places], tf.string)),
                *((task, "images", pixels) for task in tasks),
            ):
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model
                request.model_spec.signature_name = signature
                request.inputs[name].CopyFrom(values)
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString())


def write_configs(base: pathlib.Path, batch_sizes: Sequence[int]) -> None:
    """models.config, batching_parameters.txt and monitoring.config for all models below base; existing ones stay.

    models.config is written anew, since it lists the models that are there.
    """
    models = sorted({graph.parts[-3] for graph in base.glob("*/*/saved_model.pb") if graph.parts[-2].isdigit()})
    entries = "".join(
        f"""  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""
        for name in models
    )
    write_text(base / "models.config", f"model_config_list {{\n{entries}}}\n")
    largest = max(batch_sizes)
    allowed = "".join(f"allowed_batch_sizes {{ value: {size} }}\n" for size in sorted({*batch_sizes}))
    examples = {
        "batching_parameters.txt": f"max_batch_size {{ value: {largest} }}\n{allowed}"
        "batch_timeout_micros { value: 2000 }\nmax_enqueued_batches { value: 100 }\nnum_batch_threads { value: 2 }\n",
        "monitoring.config": 'prometheus_config {\n  enable: true\n  path: "/monitoring/prometheus/metrics"\n}\n',
    }
    for name, text in examples.items():
        if not (base / name).exists():
            write_text(base / name, text)
