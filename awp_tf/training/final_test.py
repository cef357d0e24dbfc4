"""What a finished run says of itself: accuracy on test images, and the robust generalisation gap."""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping

import keras

from awp_tf.attacks import FGSM, PGD
from awp_tf.data import Split, ordered
from awp_tf.evaluation.accuracy import Evaluator, Measurement, robust_gap
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.progress import Console, table
from awp_tf.infra.run_folder import FinalTest
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.infra.workers import Workers
from awp_tf.networks.classifier import keras_file

STATE = "testing.json"
_BATCHES = 10  # between two states


Counts = dict[str, dict[str, int]]


def measure(
    path: pathlib.Path,
    measurement: Measurement,
    train: Split,
    test: Split,
    *,
    dtype: str,
    workers: Workers = Workers(),
) -> FinalTest:
    """Accuracies of best.keras and last.keras in path, read back from the files; goes on where it was stopped.

    Args:
        path: The folder of the run; what was measured so far is kept in its testing.json.
        measurement: The attack, and how many images of each split.
        train: Training images, measured as they are, not augmented.
        test: Test images.
        dtype: Of the pixels.
        workers: The processes that share the images.

    Returns:
        For "best" and "last": test_clean, test_robust, train_robust, robust_gap; in 0..1.

    Raises:
        Interrupted: A signal came.
    """
    splits = {"test": measurement.subset(test), "train": measurement.subset(train)}
    state = path / STATE
    counts: Counts = json.loads(workers.gather(json.dumps(_counts_in(state)))[0])
    done = sum(count["images"] for count in counts.values())
    console = Console("testing", 2 * sum(map(len, splits.values())), done)
    if done:
        console.line(f"going on with the final test after {done:,} images")
    with Interrupt() as interrupt:

        def on_batch(images: int) -> None:
            console.advance(images * workers.count)
            workers.stop(interrupt.signum)

        for name in ("best", "last"):
            evaluator = Evaluator(_network(path / f"{name}.keras"), measurement.attacks)
            for part, split in splits.items():
                shares = functools.partial(_share, evaluator, split, measurement.batch_size, dtype, on_batch, workers)
                for _ in _count(counts.setdefault(f"{name}/{part}", _nothing()), len(split), shares):
                    _pause(state, counts, workers, interrupt)
    console.close()
    if workers.is_chief:
        state.unlink(missing_ok=True)
    return {name: _accuracies(counts[f"{name}/test"], counts[f"{name}/train"]) for name in ("best", "last")}


def _network(file: pathlib.Path) -> keras.Model:
    try:
        return keras_file(file)
    except UserError as error:
        raise UserError(f"{error}; put back a copy of it, or train in another folder.") from error


def _counts_in(state: pathlib.Path) -> Counts:
    """What was counted before; nothing where the file is damaged: the test begins anew."""
    try:
        found: Counts = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    except ValueError:
        return {}
    return found


def _nothing() -> dict[str, int]:
    return {"images": 0, "clean": 0, "robust": 0}


def _pause(state: pathlib.Path, counts: Counts, workers: Workers, interrupt: Interrupt) -> None:
    """The chief keeps the state; all end here if a signal came to one of them."""
    if workers.is_chief:
        write_text(state, json.dumps(counts))
    (stopped,) = workers.meet(interrupt.signum)
    if stopped:
        raise Interrupted(stopped)


def _count(found: dict[str, int], images: int, share: Callable[[int], dict[str, int]]) -> Iterator[None]:
    """Adds up a few batches at a time; each pause is a state to go on from."""
    while found["images"] < images:
        for name, count in share(found["images"]).items():
            found[name] += count
        yield


def _share(
    evaluator: Evaluator,
    split: Split,
    batch_size: int,
    dtype: str,
    on_batch: Callable[[int], None],
    workers: Workers,
    first: int,
) -> dict[str, int]:
    """What all workers count in the next few batches of each."""
    start, stop = workers.share(first, min(len(split), first + workers.count * _BATCHES * batch_size))
    own = ordered(split.take(slice(start, stop)), batch_size, dtype)
    return workers.total(evaluator.count(own, on_batch, start))


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
    name = _name(attack)
    header = ["network", "clean, test", f"{name}, test", f"{name}, train", "robust gap"]
    keys = ("test_clean", "test_robust", "train_robust", "robust_gap")
    rows = [[f"{which}.keras", *(f"{100 * values[key]:.2f} %" for key in keys)] for which, values in result.items()]
    best = f"best.keras (highest {best_by} accuracy on validation images)"
    return f"\n{table(header, rows)}\n\nwritten to {path}: {best}, last.keras, config.gin, result.json, tensorboard/"


def _name(attack: object) -> str:
    """PGD-20, FGSM, or what is said of any other attack."""
    if isinstance(attack, FGSM):
        return "FGSM"
    return f"PGD-{attack.steps}" if isinstance(attack, PGD) else "robust"
