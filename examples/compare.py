"""What the examples share: methods x tries x seeds, chosen on validation data, told on test data.

Every method has as many tries (plain training: weight decays; the others: how far weights move) and the same budget: a
step of AWP, SAM or ASAM takes two gradients, so plain training and random perturbations, which take one, have twice the
epochs. The try with the best validation score over all seeds is chosen; only its networks ever see test data.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
import tqdm

import awp_tf
from awp_tf.infra.progress import table
from awp_tf.perturbations import ASAM, AWP, SAM, Perturbation, RandomPerturbation


class Part(NamedTuple):
    """Inputs and targets."""

    x: np.ndarray
    y: np.ndarray


class Data(NamedTuple):
    """What one seed trains, is chosen and is told on."""

    train: Part
    validation: Part
    test: Part


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learned; data of all seeds have the same shapes.

    Attributes:
        title: Heading of the table.
        data: Seed to data.
        network: A fresh network.
        loss: For compile.
        metric: For compile, in parts of one, the higher the better; in the table it is in %.
        unit: What the table calls it.
        epochs: Of methods that take two gradients a step.
        batch_size: Examples a step.
        rate: AdamW's learning rate at the beginning.
    """

    title: str
    data: Callable[[int], Data]
    network: Callable[[], keras.Model]
    loss: keras.losses.Loss
    metric: str = "accuracy"
    unit: str = "test accuracy, %"
    epochs: int = 30
    batch_size: int = 32
    rate: float = 5e-3


@dataclasses.dataclass(frozen=True)
class Try:
    """One setting of a method.

    Attributes:
        label: What the table calls it.
        perturbation: None is plain training.
        options: Further arguments of awp_tf.perturbed.
        weight_decay: Of AdamW; its default is Keras' own.
    """

    label: str
    perturbation: Perturbation | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight_decay: float = 0.004


class Method(NamedTuple):
    """Tries of which one is chosen; gradients is how many each step takes."""

    gradients: int
    tries: Sequence[Try]


class Run(NamedTuple):
    """Of one try with one seed: weights at its end, (score, loss) on validation data, seconds of training."""

    weights: list[np.ndarray]
    validation: tuple[float, float]
    seconds: float


class Result(NamedTuple):
    """Of one method: what was chosen; its test scores and losses and the seconds of its training, seed by seed."""

    chosen: str
    scores: np.ndarray
    losses: np.ndarray
    seconds: np.ndarray


REFERENCE = "plain"
HALF = "plain, half the budget"
DECAYS, GAMMAS = (0.004, 0.1, 1.0), (0.004, 0.02, 0.1)


def methods() -> dict[str, Method]:
    """Those of every example."""
    decays = [Try(f"weight decay {d}", weight_decay=d) for d in DECAYS]
    return {
        REFERENCE: Method(1, decays),
        HALF: Method(2, decays),  # as many epochs as AWP has
        "random": Method(1, [Try(f"gamma {g}", RandomPerturbation(g)) for g in GAMMAS]),
        "AWP": Method(2, [Try(f"gamma {g}", AWP(g)) for g in GAMMAS]),
        "SAM": Method(2, [Try(f"rho {r}", SAM(r)) for r in (0.02, 0.1, 0.5)]),
        "ASAM": Method(2, [Try(f"rho {r}", ASAM(r)) for r in (0.2, 1.0, 5.0)]),
    }


def split(x: np.ndarray, y: np.ndarray, sizes: tuple[int, int], seed: int) -> Data:
    """So many training and validation examples, drawn by seed; the rest is for testing."""
    order = np.random.default_rng(seed).permutation(len(x))
    parts = np.split(order, np.cumsum(sizes))
    return Data(*(Part(x[rows], y[rows]) for rows in parts))


class Training:
    """One try of a method: a network that is compiled once, and fitted anew for every seed."""

    def __init__(self, task: Task, setting: Try, epochs: int, steps: int) -> None:
        """The learning rate falls along a cosine, to zero at the end of the run, whatever its length."""
        self._task, self._epochs = task, epochs
        self.network = task.network()
        self._model = self.network
        if setting.perturbation is not None:
            self._model = awp_tf.perturbed(self.network, setting.perturbation, **setting.options)
        rate = keras.optimizers.schedules.CosineDecay(task.rate, epochs * steps)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=setting.weight_decay)
        self._model.compile(optimizer=optimizer, loss=task.loss, metrics=[task.metric])

    def fit(self, train: Part, seed: int) -> float:
        """From the first weights of a seed, with its order of examples; returns seconds."""
        keras.utils.set_random_seed(seed)
        for variable, value in zip(self.network.variables, self._task.network().variables, strict=True):
            variable.assign(value)
        for variable in self.network.optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        batches = tf.data.Dataset.from_tensor_slices(tuple(train)).shuffle(len(train.x), seed=seed)
        begin = time.perf_counter()
        self._model.fit(batches.batch(self._task.batch_size), epochs=self._epochs, shuffle=False, verbose=0)
        return time.perf_counter() - begin

    def measure(self, part: Part) -> tuple[float, float]:
        """(Score in %, loss) of the network as it is."""
        logs = self.network.evaluate(*part, batch_size=len(part.x), verbose=0, return_dict=True)
        return 100 * logs[self._task.metric], logs["loss"]


def choose(validation: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The try with the highest mean score over seeds, of equals the one with the lower mean loss.

    Args:
        validation: (Score, loss) of every seed, by the label of a try.
    """

    def merit(label: str) -> tuple[float, float]:
        score, loss = np.mean(validation[label], axis=0)
        return round(float(score), 6), -float(loss)

    return max(validation, key=merit)


def result(task: Task, method: Method, splits: Mapping[int, Data], advance: Callable[[], object]) -> Result:
    """Trains every try with every seed, chooses one on validation data, and measures it on test data."""
    length = len(next(iter(splits.values())).train.x)
    epochs, steps = 2 * task.epochs // method.gradients, -(-length // task.batch_size)
    runs: dict[str, list[Run]] = {}
    for setting in method.tries:
        training = Training(task, setting, epochs, steps)
        runs[setting.label] = []
        for seed, data in splits.items():
            seconds = training.fit(data.train, seed)
            validation = training.measure(data.validation)
            runs[setting.label].append(Run(training.network.get_weights(), validation, seconds))
            advance()
    chosen, test = choose({label: [run.validation for run in those] for label, those in runs.items()}), []
    for run, data in zip(runs[chosen], splits.values(), strict=True):
        training.network.set_weights(run.weights)
        test.append(training.measure(data.test))
    scores, losses = np.transpose(test)
    return Result(chosen, scores, losses, np.array([run.seconds for run in runs[chosen]]))


def paired(scores: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Mean of the differences, seed by seed, and both ends of its 95 % interval (Student's t)."""
    differences = np.subtract(scores, reference)
    half = scipy.stats.t.ppf(0.975, len(differences) - 1) * scipy.stats.sem(differences)
    return differences.mean(), differences.mean() - half, differences.mean() + half


def report(task: Task, results: Mapping[str, Result]) -> str:
    """The table of a task, in Markdown; half is plain training with as many epochs as AWP, half of its gradients."""
    header = ["method", "chosen", task.unit, "minus plain [95 %]", "minus half [95 %]", "test loss", "seconds a run"]
    rows = []
    for name, of in results.items():
        against = {other: paired(of.scores, results[other].scores) for other in (REFERENCE, HALF)}
        versus = ["" if name == k else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*v) for k, v in against.items()]
        told = [f"{np.mean(v):.{n}f} ± {scipy.stats.sem(v):.{n}f}" for v, n in ((of.scores, 2), (of.losses, 3))]
        seconds = f"{np.median(of.seconds):.1f}"  # the first one also traces
        rows.append([name, of.chosen, told[0], *versus, told[1], seconds])
    return f"{task.title}\n\n{table(header, rows)}\n"


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(about: str, tasks: Sequence[Task], tried: Mapping[str, Method], seeds: int, more: Sequence[str] = ()) -> None:
    """The command of an example: flags, progress on stderr, a table for each task on stdout; more waits for --all."""
    parser = _Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=seeds, help="How many seeds (default: %(default)s).")
    parser.add_argument("--epochs", type=int, help="In place of those of each task; plain training has twice.")
    parser.add_argument("--all", action="store_true", help=f"Also what takes longer: {'; '.join(more) or 'nothing'}.")
    flags = parser.parse_args()
    tasks = [task for task in tasks if flags.all or task.title not in more]
    tried = {name: method for name, method in tried.items() if flags.all or name not in more}
    if flags.seeds < 2 or (flags.epochs is not None and flags.epochs < 1):
        parser.error("expected --seeds of at least 2, for an interval, and --epochs of at least 1")
    tf.config.experimental.enable_op_determinism()
    total = len(tasks) * sum(len(method.tries) for method in tried.values()) * flags.seeds
    begin = time.perf_counter()
    with tqdm.tqdm(total=total, unit=" runs", file=sys.stderr) as bar:
        for each in tasks:
            task = dataclasses.replace(each, epochs=flags.epochs or each.epochs)
            splits = {seed: task.data(seed) for seed in range(flags.seeds)}
            results = {name: result(task, method, splits, bar.update) for name, method in tried.items()}
            bar.clear()
            print(report(task, results), flush=True)
    minutes, rest = divmod(round(time.perf_counter() - begin), 60)
    print(f"{total} runs, {flags.seeds} seeds each, {minutes}m{rest:02}s")
