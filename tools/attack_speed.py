"""The speed of the attacks of evaluation, on images that no attack fools (--everything of tools.benchmark).

Such an image is in every batch to the end, so this is the most that an attack costs. A part of each attack's steps is
timed, and what all of them take follows: every step costs the same.
"""

import dataclasses
import statistics
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from awp_tf.attacks import APGD, FAB, PGD, LastIterate, Search, Square
from awp_tf.attacks.search import Examples
from awp_tf.evaluation.runner import Runner
from awp_tf.infra.apart import Facts
from awp_tf.networks.classifier import Classifier, of_keras
from awp_tf.threats import Threat
from awp_tf.types import Predict
from tools.timing import interleave

_AHEAD = 1e4  # of the first logit; no attack makes up for that


def measure(network: keras.Model, x: np.ndarray, threat: Threat, runs: int) -> list[Facts]:
    """Times each attack of the standard AutoAttack, and PGD-20.

    Args:
        network: What is attacked.
        x: Images [B, H, W, C] in [0, 1], one batch.
        threat: The ball.
        runs: Timed runs of each, taken in turns.

    Returns:
        For each attack its name, images a second when it is carried out whole, and steps of an image a second.
    """
    attacks = _attacks(threat)
    classifier = _never_fooled(of_keras(network))
    labels = np.zeros(len(x), np.int32)
    examples = Examples(x.astype(classifier.dtype), labels, labels + 1, np.arange(len(x)))
    work = {name: _work(classifier, part.search, examples) for name, part in attacks.items()}
    for each in work.values():
        each()  # traces
    seconds = interleave(work, runs)
    rows = []
    for name, part in attacks.items():
        speed = len(x) * part.timed / statistics.median(seconds[name])
        rows.append({"name": name, "images_per_second": speed / part.steps, "image_steps_per_second": speed})
    return rows


@dataclasses.dataclass(frozen=True)
class _Part:
    """A short form of an attack: it takes `timed` steps, where the whole takes `steps`, targets included."""

    search: Search
    timed: int
    steps: int


def _attacks(threat: Threat) -> dict[str, _Part]:
    """With the lengths of the official AutoAttack."""
    return {
        "pgd-20": _Part(LastIterate(PGD(threat, steps=20)), 20, 20),
        "apgd-ce": _Part(APGD(threat, iterations=10), 11, 101),
        "apgd-t": _Part(APGD(threat, "targeted-dlr", iterations=10, targets=1), 11, 9 * 101),
        "fab-t": _Part(FAB(threat, iterations=5, targets=1), 5, 9 * FAB(threat).steps),
        "square": _Part(Square(threat, queries=50), 51, Square(threat).steps),
    }


def _never_fooled(classifier: Classifier) -> Classifier:
    """The same, sure of class 0."""
    lead = tf.one_hot(0, classifier.classes, on_value=_AHEAD, dtype=classifier.dtype)
    at = classifier.at
    assert at is not None  # a Keras network's weights are in reach
    sure: Callable[[Predict], Predict] = lambda predict: lambda x: predict(x) + lead  # noqa: E731
    return dataclasses.replace(classifier, predict=sure(classifier.predict), at=lambda weights: sure(at(weights)))


def _work(classifier: Classifier, search: Search, examples: Examples) -> Callable[[], float]:
    runner, key = Runner(classifier, search), tf.constant([0, 0], tf.int64)
    return lambda: float(len(runner(examples, key, 0).fooled))
