"""What a finished run says of itself: accuracy on test images, and the robust generalisation gap."""

import pathlib
from collections.abc import Mapping

import keras

from awp_tf.attacks import PGD
from awp_tf.console import Console, table
from awp_tf.data import Split
from awp_tf.evaluation import Evaluator, Measurement, robust_gap
from awp_tf.interrupt import Interrupt
from awp_tf.run_folder import Result


def measure(path: pathlib.Path, measurement: Measurement, train: Split, test: Split, *, dtype: str) -> Result:
    """Accuracies of best.keras and last.keras in path, read back from the files.

    Args:
        path: The folder of the run.
        measurement: The attack, and how many images of each split.
        train: Training images, measured as they are, not augmented.
        test: Test images.
        dtype: Of the pixels.

    Returns:
        For "best" and "last": test_clean, test_robust, train_robust, robust_gap; in 0..1.

    Raises:
        Interrupted: A signal came.
    """
    splits = {"test": test, "train": train}
    total = 2 * sum(len(measurement.subset(split)) for split in splits.values())
    console = Console("testing", total)
    result = {}
    with Interrupt() as interrupt:

        def on_batch(images: int) -> None:
            console.advance(images)
            interrupt.check()

        for name in ("best", "last"):
            network = keras.models.load_model(path / f"{name}.keras")
            evaluator = Evaluator(network, measurement.attacks)
            found = {part: evaluator(measurement.batches(split, dtype), on_batch) for part, split in splits.items()}
            result[name] = {
                "test_clean": found["test"]["clean"],
                "test_robust": found["test"]["robust"],
                "train_robust": found["train"]["robust"],
                "robust_gap": robust_gap(found["train"]["robust"], found["test"]["robust"]),
            }
    console.close()
    return result


def text(result: Mapping[str, Mapping[str, float]], path: pathlib.Path, attack: object = None) -> str:
    """The result as a table, and where everything is."""
    name = f"PGD-{attack.steps}" if isinstance(attack, PGD) else "robust"
    header = ["network", "clean, test", f"{name}, test", f"{name}, train", "robust gap"]
    keys = ("test_clean", "test_robust", "train_robust", "robust_gap")
    rows = [[f"{which}.keras", *(f"{100 * values[key]:.2f} %" for key in keys)] for which, values in result.items()]
    files = (
        "best.keras (highest robust accuracy on validation images), last.keras, config.gin, result.json, tensorboard/"
    )
    return f"\n{table(header, rows)}\n\nwritten to {path}: {files}"
