"""Seconds and memory of steps of awp_tf.perturbed, as multiples of plain Keras' (--perturbed of tools.benchmark)."""

import multiprocessing
import statistics
from collections.abc import Callable

import keras
import numpy as np

from awp_tf.any_model import perturbed
from awp_tf.attacks import FGSM
from awp_tf.infra import memory
from awp_tf.infra.errors import one_of
from awp_tf.infra.progress import table
from awp_tf.perturbations import ASAM, AWP, SAM, RandomPerturbation
from awp_tf.threats import L2
from tools.timing import Step, interleave

Data = tuple[np.ndarray, np.ndarray]


def mlp() -> tuple[keras.Model, Data]:
    """A small table: the overhead of a step shows."""
    rng = np.random.default_rng(0)
    dense = [keras.layers.Dense(128, "relu") for _ in range(2)]
    network = keras.Sequential([keras.Input([30]), *dense, keras.layers.Dense(10)])
    return network, (rng.normal(size=(128, 30)).astype("float32"), rng.integers(0, 10, 128))


def cnn() -> tuple[keras.Model, Data]:
    """Convolutions with BatchNormalization on 64 images of 32 x 32: computation is what takes the time."""
    rng = np.random.default_rng(0)
    layers = [keras.Input([32, 32, 3])]
    for width, strides in ((32, 1), (64, 2), (128, 2), (128, 1)):
        layers += [
            keras.layers.Conv2D(width, 3, strides, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    network = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
    return network, (rng.uniform(size=(64, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 64))


def transformer() -> tuple[keras.Model, Data]:
    """Two blocks over 32 texts of 128 tokens."""
    rng = np.random.default_rng(0)
    tokens = keras.Input([128], dtype="int32")
    x = keras.layers.Embedding(8000, 128, name="embedding")(tokens)
    for _ in range(2):
        x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(4, 32)(x, x))
        hidden = keras.layers.Dense(256, "gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(128)(hidden))
    network = keras.Model(tokens, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling1D()(x)))
    return network, (rng.integers(0, 8000, (32, 128)), rng.integers(0, 10, 32))


MODELS: dict[str, Callable[[], tuple[keras.Model, Data]]] = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
WRAPS: dict[str, Callable[[keras.Model], keras.Model]] = {
    "plain": lambda network: network,
    "AWP": lambda network: perturbed(network, AWP(0.01)),
    "AWP, where=embeddings": lambda network: perturbed(network, AWP(0.01), where="embeddings"),
    "SAM": lambda network: perturbed(network, SAM(0.05)),
    "ASAM": lambda network: perturbed(network, ASAM(0.5)),
    "RandomPerturbation": lambda network: perturbed(network, RandomPerturbation(0.01)),
    "AWP + FGSM on embeddings": lambda network: perturbed(
        network, AWP(0.01), attack=FGSM(L2(1.0), box=None), on="embedding"
    ),
}
GRADIENTS = {"plain": 1, "RandomPerturbation": 1, "AWP + FGSM on embeddings": 3}  # all others: 2


def step_of(model: str, wrap: str) -> Step:
    """A training step, already traced, that waits for its end."""
    keras.utils.set_random_seed(0)
    network, (x, y) = MODELS[model]()
    trained = WRAPS[wrap](network)
    trained.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    step = lambda: float(np.sum(trained.train_on_batch(x, y)))  # noqa: E731
    for _ in range(3):  # traces, and warms up
        step()
    return step


def peak(model: str, wrap: str) -> int:
    """Of a process that takes three steps, in MiB; on Linux."""
    step = step_of(model, wrap)
    for _ in range(3):
        step()
    return memory.peak() // 2**20


def compare(model: str, runs: int) -> str:
    """The table of a model: steps in turns in one process, so that a busy machine slows all alike; medians count.

    Memory is that of a process of its own for each. Data are random: a step costs the same on any.

    Raises:
        UserError: There is no such model.
    """
    one_of("--perturbed", model, MODELS)
    wraps = [name for name in WRAPS if "embeddings" not in name or model == "transformer"]
    seconds = interleave({name: step_of(model, name) for name in wraps}, runs)
    rows = []
    for name in wraps:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["plain"], strict=True))
        milliseconds = 1000 * statistics.median(seconds[name])
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak, (model, name))
        rows.append([model, name, str(GRADIENTS.get(name, 2)), f"{milliseconds:.1f}", f"{ratio:.2f}", str(memory)])
    return table(["model", "step", "gradients", "ms", "times plain", "peak MiB"], rows)
