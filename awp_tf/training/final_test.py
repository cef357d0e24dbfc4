"""What a finished run says of itself: accuracy on test images, and the robust generalisation gap."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import keras

from awp_tf.attacks import PGD
from awp_tf.data import Split, ordered
from awp_tf.evaluation.accuracy import Evaluator, Measurement, robust_gap
from awp_tf.infra.files import write_text
from awp_tf.infra.progress import Console, table
from awp_tf.infra.run_folder import FinalTest
from awp_tf.infra.signals import Interrupt

STATE = "testing.json"
_BATCHES = 10  # between two states


Counts = dict[str, dict[str, int]]


def measure(path: pathlib.Path, measurement: Measurement, train: Split, test: Split, *, dtype: str) -> FinalTest:
    """Accuracies of best.keras and last.keras in path, read back from the files; goes on where it was stopped.

    Args:
        path: The folder of the run; what was measured so far is kept in its testing.json.
        measurement: The attack, and how many images of each split.
        train: Training images, measured as they are, not augmented.
        test: Test images.
        dtype: Of the pixels.

    Returns:
        For "best" and "last": test_clean, test_robust, train_robust, robust_gap; in 0..1.

    Raises:
        Interrupted: A signal came.
    """
    splits = {"test": measurement.subset(test), "train": measurement.subset(train)}
    state = path / STATE
    counts: Counts = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    done = sum(count["images"] for count in counts.values())
    console = Console("testing", 2 * sum(map(len, splits.values())), done)
    if done:
        console.line(f"going on with the final test after {done:,} images")
    with Interrupt() as interrupt:

        def on_batch(images: int) -> None:
            console.advance(images)
            interrupt.check()

        for name in ("best", "last"):
            evaluator = Evaluator(keras.models.load_model(path / f"{name}.keras"), measurement.attacks)
            for part, split in splits.items():
                for _ in _count(counts, f"{name}/{part}", evaluator, split, measurement.batch_size, dtype, on_batch):
                    write_text(state, json.dumps(counts))
    console.close()
    state.unlink(missing_ok=True)
    return {name: _accuracies(counts[f"{name}/test"], counts[f"{name}/train"]) for name in ("best", "last")}


def _count(
    counts: Counts,
    key: str,
    evaluator: Evaluator,
    split: Split,
    batch_size: int,
    dtype: str,
    on_batch: Callable[[int], None],
) -> Iterator[None]:
    """Adds up a few batches at a time under key; each pause is a state to go on from."""
    found = counts.setdefault(key, {"images": 0, "clean": 0, "robust": 0})
    while (first := found["images"]) < len(split):
        batches = ordered(split.take(slice(first, first + _BATCHES * batch_size)), batch_size, dtype)
        for name, count in evaluator.count(batches, on_batch, first).items():
            found[name] += count
        yield


def _accuracies(test: Mapping[str, int], train: Mapping[str, int]) -> dict[str, float]:
    test_robust, train_robust = (part["robust"] / part["images"] for part in (test, train))
    return {
        "test_clean": test["clean"] / test["images"],
        "test_robust": test_robust,
        "train_robust": train_robust,
        "robust_gap": robust_gap(train_robust, test_robust),
    }


def text(
    result: Mapping[str, Mapping[str, float]], path: pathlib.Path, attack: object = None, best_by: str = "robust"
) -> str:
    """The result as a table, and where everything is."""
    name = f"PGD-{attack.steps}" if isinstance(attack, PGD) else "robust"
    header = ["network", "clean, test", f"{name}, test", f"{name}, train", "robust gap"]
    keys = ("test_clean", "test_robust", "train_robust", "robust_gap")
    rows = [[f"{which}.keras", *(f"{100 * values[key]:.2f} %" for key in keys)] for which, values in result.items()]
    best = f"best.keras (highest {best_by} accuracy on validation images)"
    return f"\n{table(header, rows)}\n\nwritten to {path}: {best}, last.keras, config.gin, result.json, tensorboard/"
