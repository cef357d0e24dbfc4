"""Times whole training steps: images a second, start-up, peak memory, and how near to what the machine can do.

    python -m tools.benchmark --gin_file=gin/at_awp.gin --batch_sizes=32,128
    python -m tools.benchmark --gin_file=gin/at.gin --against=gin/at_awp.gin
    python -m tools.benchmark --gin_file=gin/at_awp.gin --reference=PATH
    python -m tools.benchmark --everything --batch_sizes=128 --minutes=10 --json=speed.json
    python -m tools.benchmark --perturbed=cnn,transformer --runs=15
    python -m tools.benchmark --gin_file=gin/at_awp.gin --find_batch_size --memory_gib=8
    python -m tools.benchmark --gin_file=gin/at_awp.gin --scale --batch_sizes=64
    python -m tools.benchmark --gin_file=gin/at_awp.gin --batch_sizes=128 --hlo=program
    python -m tools.benchmark --serving=serving/x/1 --keras=runs/x/best.keras --batch_sizes=1,8,64 --runs=200

Each contender has a process of its own, and they take their steps in turns. --against times further recipes,
--devices=2 each recipe on two devices, too (GPUs, or slices of the CPU), and --reference the PyTorch step of a checkout
of csdongxian/AWP (extra "torch"; AT-AWP or TRADES-AWP, as the first recipe, on PreActResNet-18 at its full width). "of
the limit" is the time that the step's convolutions and matrix products would take at the speed of one large matrix
product here. --everything makes the whole table: every recipe's step, PGD-20 and the attacks of AutoAttack on images
that stay robust to the end, and the input. --perturbed times awp_tf.perturbed around models of plain Keras.
--find_batch_size looks for the largest batch that fits into memory, and for the fastest. --scale measures what several
devices, input, checkpoints and resuming cost. --hlo writes the step for other XLA runtimes: step.hlo, step.hlo.pb,
inputs.npz with an array for each parameter in order, and with --outputs what the step made of them here. --serving
times what pipelines.export wrote against the network's predict_on_batch. Images are random: a step costs the same on
any.
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import absl.flags
import numpy as np
import tensorflow as tf

from awp_tf.data import Data
from awp_tf.infra.devices import use_gpus
from awp_tf.infra.files import write_text
from awp_tf.training.recipe import Recipe
from pipelines import _cli, _devices, _main
from tools import batch_size, perturbed_cost, scale_cost, serving_speed, speed_table, step_program, step_speed

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
_JSON = absl.flags.DEFINE_string("json", None, "A file for the figures of training steps.")
_EVERYTHING = absl.flags.DEFINE_bool("everything", False, "Every recipe's step, the attacks of evaluation, the input.")
_MINUTES = absl.flags.DEFINE_float("minutes", 10.0, "With --everything: nothing is begun later.", lower_bound=0.0)
_HLO = absl.flags.DEFINE_string("hlo", None, "A folder for the step of --gin_file as an XLA program, and its inputs.")
_OUTPUTS = absl.flags.DEFINE_bool("outputs", False, "With --hlo: run it here, too, and keep what it gives.")
_REFERENCE = absl.flags.DEFINE_string("reference", None, "A checkout of csdongxian/AWP.")


def run(argv: Sequence[str]) -> None:
    """Does what the flags ask for."""
    print(f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs")
    if _FIND.value or _SCALE.value:
        _scale()
    elif _SERVING.value:
        if not _KERAS.value:
            raise _cli.UserError("--serving: expected --keras with it, the .keras file that it was made from.")
        print(
            serving_speed.compare_serving(
                _SERVING.value, _KERAS.value, [int(n) for n in _BATCH_SIZES.value], _RUNS.value
            )
        )
    elif _HLO.value:
        _write_program()
    elif _EVERYTHING.value:
        _everything()
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
        print(work or scale_cost.compare(setting, [*arguments, f"--batch_sizes={size}"], _RUNS.value), flush=True)


def _write_program() -> None:
    """--hlo: of the first of --batch_sizes."""
    flags = absl.flags.FLAGS
    _cli.parse(flags.gin_file, flags.gin_bindings)
    x, y = _images(int(_BATCH_SIZES.value[0]))
    print(step_program.write(_HLO.value, _cli.call(Recipe), x, y, _CLASSES.value, compute=_OUTPUTS.value))


def _everything() -> None:
    """--everything: says each row as it comes, and all of them in the end."""
    use_gpus(1)  # for attacks and input; the steps' processes need room on it, too
    size = int(_BATCH_SIZES.value[0])
    setting = step_speed.Setting(absl.flags.FLAGS.gin_bindings, *_images(size), _CLASSES.value)
    found = []
    for row in speed_table.rows(_cli.ROOT / "gin", setting, _RUNS.value, _MINUTES.value):
        print("  ".join(part for part in speed_table.as_line(row) if part), flush=True)
        found.append({"batch": size, **row})
        _write(found)
    print(f"\nbatch {size}\n{speed_table.as_table(found)}")


def _write(found: Sequence[dict[str, Any]]) -> None:
    if _JSON.value:
        write_text(pathlib.Path(_JSON.value), json.dumps({"tensorflow": tf.__version__, "steps": found}, indent=2))


def _time_steps() -> None:
    """Times every batch size and prints a table of each."""
    flags = absl.flags.FLAGS
    for model in _PERTURBED.value:
        print(perturbed_cost.compare(model, _RUNS.value), flush=True)
    recipes = [flags.gin_file, *(each.split("+") for each in _AGAINST.value)]
    found = []
    for size in map(int, _BATCH_SIZES.value if flags.gin_file else []):
        count = _devices.DEVICES.value
        devices = [1] if count is None else sorted({1, count})
        batch = step_speed.Setting(flags.gin_bindings, *_images(size), _CLASSES.value, devices)
        rows = step_speed.measure(recipes, batch, _RUNS.value, _REFERENCE.value)
        print(f"batch {size}\n{step_speed.as_table(rows)}", flush=True)
        found += [{"batch": size, **row} for row in rows]
        _write(found)


if __name__ == "__main__":
    _main.main(run)
