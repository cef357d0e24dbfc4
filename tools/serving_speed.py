"""How fast an exported network answers, beside the network's predict_on_batch (--serving of tools.benchmark)."""

import pathlib
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.infra.progress import table
from awp_tf.networks.classifier import keras_file

Ask = Callable[[np.ndarray], object]


def contenders(folder: str, network: str) -> tuple[dict[str, Ask], tuple[int, ...]]:
    """({name: asks for the logits of uint8 images and waits for them}, shape of an image).

    Args:
        folder: Of a version, as pipelines.export writes it.
        network: The .keras file.
    """
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    model: keras.Model = keras_file(pathlib.Path(network))

    def ask_exported(images: np.ndarray) -> object:
        return signature(images=tf.constant(images))["logits"].numpy()

    ask_exported.keeps = loaded  # type: ignore[attr-defined]  # the variables live as long as this object
    in_keras = lambda images: model.predict_on_batch(images.astype(np.float32) / 255)  # noqa: E731
    return {"exported": ask_exported, "predict_on_batch": in_keras}, tuple(model.input_shape[1:])


def compare_serving(folder: str, network: str, batch_sizes: Sequence[int], runs: int) -> str:
    """A table: images per second and latency of both, asked in turns so that a busy machine slows both alike."""
    asks, shape = contenders(folder, network)
    rows = []
    for size in batch_sizes:
        images = np.random.default_rng(0).integers(0, 256, (size, *shape)).astype(np.uint8)
        seconds: dict[str, list[float]] = {name: [] for name in asks}
        for turn in range(runs + 3):
            for name, ask in asks.items():
                start = time.perf_counter()
                ask(images)
                if turn >= 3:  # the first ones trace and warm up
                    seconds[name].append(time.perf_counter() - start)
        medians = {name: float(np.median(values)) for name, values in seconds.items()}
        for name, values in seconds.items():
            p50, p99 = (1000 * np.percentile(values, q) for q in (50, 99))
            ratio = f"{medians['predict_on_batch'] / medians[name]:.2f}"
            rows.append([str(size), name, f"{size / medians[name]:.0f}", f"{p50:.2f} ms", f"{p99:.2f} ms", ratio])
    return table(["batch", "", "images/s", "p50", "p99", "times as fast"], rows)
