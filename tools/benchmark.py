"""Times whole training steps: images per second, and peak memory; or an exported folder.

    python -m tools.benchmark --gin_file=gin/at_awp.gin --batch_sizes=32,128
    python -m tools.benchmark --gin_file=gin/at.gin --against=gin/at_awp.gin
    python -m tools.benchmark --gin_file=gin/at_awp.gin --reference=PATH
    python -m tools.benchmark --perturbed=cnn,transformer --runs=15
    python -m tools.benchmark --gin_file=gin/at_awp.gin --find_batch_size --memory_gib=8
    python -m tools.benchmark --gin_file=gin/at_awp.gin --scale --batch_sizes=64
    python -m tools.benchmark --serving=serving/x/1 --keras=runs/x/best.keras --batch_sizes=1,8,64 --runs=200

--against times further recipes, and --reference the PyTorch step of a checkout of csdongxian/AWP
(extra "torch"; AT-AWP on PreActResNet-18 at its full width), in turns with the first, and prints the
ratio; PyTorch runs in a process of its own. --perturbed times awp_tf.perturbed around models of plain
Keras. --find_batch_size looks for the largest batch that fits into memory, and for the fastest. --scale
measures what several devices, input, checkpoints and resuming cost. --serving times what pipelines.export
wrote against the network's predict_on_batch. Images are random: a step costs the same on any.
"""

import contextlib
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import absl.flags
import keras
import numpy as np
import tensorflow as tf

from awp_tf.data import Data
from awp_tf.infra.progress import table
from awp_tf.networks.classifier import keras_file
from awp_tf.training.recipe import Recipe
from pipelines import _cli, _devices, _main
from tools import batch_size, perturbed_cost, reference_step, scale_cost
from tools.timing import Step, interleave

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
absl.flags.adopt_module_key_flags(_devices)
_BATCH_SIZES = absl.flags.DEFINE_list("batch_sizes", ["32"], "Images per step.")
_RUNS = absl.flags.DEFINE_integer("runs", 5, "Timed steps of each, taken in turns; the median counts.", lower_bound=1)
_SHAPE = absl.flags.DEFINE_list("shape", ["32", "32", "3"], "Height, width, channels.")
_CLASSES = absl.flags.DEFINE_integer("classes", 10, "Classes.", lower_bound=2)
_AGAINST = absl.flags.DEFINE_multi_string("against", [], "Another recipe, its gin files joined by +; may be repeated.")
_SERVING = absl.flags.DEFINE_string("serving", None, "The folder of an exported version.")
_KERAS = absl.flags.DEFINE_string("keras", None, "With --serving: the .keras file that it was made from.")
_PERTURBED = absl.flags.DEFINE_list("perturbed", [], f"Models of Keras: {', '.join(perturbed_cost.MODELS)}.")
_FIND = absl.flags.DEFINE_bool("find_batch_size", False, "Looks for the largest batch whose step fits into memory.")
_MEMORY = absl.flags.DEFINE_float("memory_gib", None, "With --find_batch_size: the limit; without it, what there is.")
_SCALE = absl.flags.DEFINE_bool("scale", False, "Measures what several devices, input, checkpoints and resuming cost.")
_ONE_BATCH = absl.flags.DEFINE_integer("one_batch", None, "Of --find_batch_size: a process that tries one.")
_RING_WORKER = absl.flags.DEFINE_bool("ring_worker", False, "Of --scale: one of two processes.")
_REFERENCE = absl.flags.DEFINE_string("reference", None, "A checkout of csdongxian/AWP.")


def our_step(files: Sequence[str], bindings: Sequence[str], x: np.ndarray, y: np.ndarray) -> Step:
    """One training step of a recipe on images x [B, H, W, C] and labels y [B], already traced."""
    _cli.parse(files, bindings)
    recipe = _cli.call(Recipe)
    trainer = recipe.trainer(x.shape[1:], _CLASSES.value, epochs=1, steps_per_epoch=1, seed=0)
    step = tf.function(trainer.train_step, autograph=False)
    batch = tf.constant(x, recipe.dtype), tf.constant(y)
    run = lambda: float(step(batch)["loss"])  # noqa: E731
    run()
    return run


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


def run(argv: Sequence[str]) -> None:
    """Does what the flags ask for."""
    print(f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs")
    if _FIND.value or _SCALE.value:
        _scale()
    elif _SERVING.value:
        if not _KERAS.value:
            raise _cli.UserError("--serving: expected --keras with it, the .keras file that it was made from.")
        print(compare_serving(_SERVING.value, _KERAS.value, [int(n) for n in _BATCH_SIZES.value], _RUNS.value))
    else:
        _time_steps()


def _images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images in [0, 1] and labels."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (size, *map(int, _SHAPE.value))).astype(np.float32)
    return x, rng.integers(0, _CLASSES.value, size).astype(np.int32)


def _scale() -> None:
    """--find_batch_size and --scale, and the processes that they start."""
    flags, arguments = absl.flags.FLAGS, sys.argv[1:]
    _cli.parse(flags.gin_file, flags.gin_bindings)
    recipe, data = _cli.call(Recipe), _cli.call(Data)
    if _ONE_BATCH.value:
        x, y = _images(_ONE_BATCH.value)
        print(batch_size.measure(recipe, x, y, _CLASSES.value, _devices.DEVICES.value, _RUNS.value))
        return
    if _FIND.value:
        devices = _devices.DEVICES.value or max(1, len(tf.config.list_physical_devices("GPU")))
        batch_size.find(arguments, recipe, data.batch_size, devices, _MEMORY.value)
        return
    for size in map(int, _BATCH_SIZES.value):
        setting = scale_cost.Setting(recipe, data, *_images(size), _CLASSES.value)
        work = scale_cost.ring_rows(setting, _RUNS.value) if _RING_WORKER.value else None
        print(work or scale_cost.compare(setting, arguments, _RUNS.value), flush=True)


def _time_steps() -> None:
    """Times every batch size and prints a line for each contender."""
    flags = absl.flags.FLAGS
    for model in _PERTURBED.value:
        print(perturbed_cost.compare(model, _RUNS.value), flush=True)
    for size in map(int, _BATCH_SIZES.value if flags.gin_file else []):
        x, y = _images(size)
        recipes = [flags.gin_file, *(each.split("+") for each in _AGAINST.value)]
        steps = {"+".join(files): our_step(files, flags.gin_bindings, x, y) for files in recipes}
        with contextlib.ExitStack() as others:
            if _REFERENCE.value:
                apart = reference_step.apart(_REFERENCE.value, x, y)
                steps["reference (PyTorch)"] = others.enter_context(apart)
            _report(size, interleave(steps, _RUNS.value))


def _report(size: int, seconds: dict[str, list[float]]) -> None:
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = f"  takes {median / first:.3f} times the first's time" if len(seconds) > 1 else ""
        print(
            f"batch {size}  {name}: {size / median:.2f} images/s ({min(values):.3f}-{max(values):.3f} s a step){ratio}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"batch {size}  peak memory of the process so far: {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    _main.main(run)
