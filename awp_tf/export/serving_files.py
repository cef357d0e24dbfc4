"""What a model server wants beside the graph: warm-up requests, and examples of its configuration."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from awp_tf.export.signatures import BYTES, DEFAULT
from awp_tf.infra.files import write_text

WARMUP = "assets.extra/tf_serving_warmup_requests"
_MOST_RECORDS = 1000  # TF Serving reads no more


def write_warmup(folder: pathlib.Path, model: str, images: np.ndarray, batch_sizes: Sequence[int]) -> None:
    """Requests that a server sends itself before it answers others: both signatures at every batch size.

    Args:
        folder: Of the version.
        model: Its name.
        images: uint8 [N, H, W, C], repeated as needed.
        batch_sizes: At most 500.
    """
    path = folder / WARMUP
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in list(batch_sizes)[: _MOST_RECORDS // 2]:
            places = np.arange(size) % len(images)
            for signature, name, values in (
                (DEFAULT, "images", tf.make_tensor_proto(images[places])),
                (BYTES, "image_bytes", tf.make_tensor_proto(encoded[places], tf.string)),
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
