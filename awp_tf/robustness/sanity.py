"""Signs that a robust accuracy is not to be believed (Carlini et al., 2019; Croce et al., ICML 2022)."""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.attacks.autoattack import Cascade
from awp_tf.attacks.search import climb, misclassified
from awp_tf.losses import margin
from awp_tf.random import EVALUATION, ImageSeeds, make_seed
from awp_tf.robustness.assessment import runs_of
from awp_tf.robustness.classifier import Classifier
from awp_tf.robustness.ledger import ROBUST, Ledger
from awp_tf.threats import L2, Linf, Threat

BLACK_BOX = ("square", "spsa", "transfer")
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # of epsilon, where the curve is measured
_CURVE_STEPS, _FEW_STEPS, _MANY_STEPS = 20, 10, 50
_SLACK = 0.01  # of accuracy, within which two attacks count as equally strong
_BLACK_BOX_SLACK = 0.002  # that of the official code


class Check(NamedTuple):
    """One sign.

    Attributes:
        name: What was looked at.
        passed: Whether all is well.
        detail: What was found, in a sentence.
    """

    name: str
    passed: bool
    detail: str


class Curve(NamedTuple):
    """Accuracy under PGD on the margin, as the ball grows.

    Attributes:
        epsilons: Radii; the last one covers the whole pixel box.
        accuracies: In 0..1.
        images: On how many images.
    """

    epsilons: list[float]
    accuracies: list[float]
    images: int


class Sanity:
    """Looks at a classifier on a few images.

    Args of the constructor:
        classifier: The network.
        x: Images in [0, 1], [M, H, W, C].
        labels: Theirs, [M].
        threat: The ball of the evaluation.
        seed: What noise depends on.
    """

    def __init__(self, classifier: Classifier, x: tf.Tensor, labels: np.ndarray, threat: Threat, seed: int) -> None:
        """Prepares the forward pass."""
        self._classifier, self._x, self._threat, self._seed = classifier, x, threat, seed
        self._labels = tf.constant(labels, tf.int32)
        predict = lambda x: classifier.predict(x)  # noqa: E731, PLW0108  (tf.function takes functions only)
        self._predict = tf.function(predict, autograph=False)

    def checks(self, *, randomised: bool, on_look: Callable[[], None] = lambda: None) -> tuple[list[Check], Curve]:
        """All signs that can be seen without the evaluation's result.

        Args:
            randomised: Whether the attacks expect a network that draws noise.
            on_look: Called now and then; may raise.
        """
        looks = [self.logits, lambda: self.deterministic(randomised), self.gradients, self.more_steps]
        checks = []
        for look in looks:
            checks.append(look())
            on_look()
        curve = self.curve(on_look)
        return [*checks, unbounded(curve)], curve

    def logits(self) -> Check:
        """Outputs that look like probabilities: a softmax flattens the gradient of every loss on logits."""
        z = self._predict(self._x).numpy()
        alike = z.min() > -1e-5 and z.max() < 1 + 1e-5 and np.abs(z.sum(1) - 1).max() < 1e-5
        detail = "outputs are probabilities; give the network before its softmax" if alike else "outputs are logits"
        return Check("logits", not alike, detail)

    def deterministic(self, expected_randomised: bool) -> Check:
        """Five passes that do not agree; the thresholds are the official code's."""
        passes = [self._predict(self._x).numpy() for _ in range(5)]
        right = {int((z.argmax(1) == self._labels.numpy()).sum()) for z in passes}
        unit = [z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-10) for z in passes]
        apart = max(np.linalg.norm(a - b, axis=1).max() for a, b in itertools.combinations(unit, 2))
        same = len(right) == 1 and apart <= 1e-4
        if same:
            return Check("deterministic", True, "five passes agree")
        if expected_randomised:
            return Check("deterministic", True, "outputs are randomised, which the attacks take into account")
        return Check(
            "deterministic", False, "outputs are randomised, so an attack may fail by chance; use --attacks=rand"
        )

    def gradients(self) -> Check:
        """Images whose margin has no gradient at all: rounding, or a step function."""
        wrong, _, gradient = climb(self._margin, self._x)
        flat = int(np.sum(tf.reduce_all(gradient == 0, axis=[1, 2, 3]).numpy() & ~wrong.numpy()))
        finite = bool(np.isfinite(gradient).all())
        detail = f"{flat} of {len(self._x)} images have a zero gradient{'' if finite else ', some a NaN'}"
        return Check("gradients", finite and flat == 0, detail)

    def more_steps(self) -> Check:
        """PGD that does worse the longer it climbs: its gradient leads astray."""
        few, many = (self._accuracy(steps) for steps in (_FEW_STEPS, _MANY_STEPS))
        detail = f"PGD-{_FEW_STEPS} {100 * few:.1f} %, PGD-{_MANY_STEPS} {100 * many:.1f} %"
        return Check("more steps", many <= few + max(_SLACK, 1.5 / len(self._x)), detail)

    def curve(self, on_look: Callable[[], None] = lambda: None) -> Curve:
        """Accuracy for growing balls, the last one as large as the box."""
        everything = {Linf: 1.0, L2: float(np.sqrt(np.prod(self._x.shape[1:])))}[type(self._threat)]
        epsilons = [m * self._threat.epsilon for m in MULTIPLES if m * self._threat.epsilon < everything]
        accuracies = []
        measure = self._measure(_CURVE_STEPS)
        for epsilon in (*epsilons, everything):
            accuracies.append(float(measure(tf.constant(epsilon, self._x.dtype))))
            on_look()
        return Curve([*epsilons, everything], accuracies, len(self._x))

    def _accuracy(self, steps: int) -> float:
        return float(self._measure(steps)(tf.constant(self._threat.epsilon, self._x.dtype)))

    def _measure(self, steps: int) -> Callable[[tf.Tensor], tf.Tensor]:
        """Accuracy under PGD as a function of epsilon: one trace for all of them."""
        seeds = ImageSeeds(make_seed(self._seed, EVALUATION).key, tf.range(len(self._x), dtype=tf.int64))

        def accuracy(epsilon: tf.Tensor) -> tf.Tensor:
            threat = type(self._threat)(epsilon)  # type: ignore[call-arg]
            x = PGD(threat, steps)(lambda z: self._margin(z)[0], self._x, seeds)
            wrong = misclassified(self._classifier.predict(x), self._labels)
            return 1 - tf.reduce_mean(tf.cast(wrong, tf.float64))

        return tf.function(accuracy, autograph=False)

    def _margin(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self._classifier.predict(x)
        return margin(logits, self._labels), misclassified(logits, self._labels)


def unbounded(curve: Curve) -> Check:
    """An attack that may change everything must succeed on everything."""
    left = curve.accuracies[-1]
    detail = f"{100 * left:.1f} % remain where every pixel may take any value"
    return Check("unbounded attack", left <= _SLACK, detail)


def black_box(cascades: Mapping[str, Cascade], ledger: Ledger) -> Check:
    """Images that only an attack without gradients fooled: a sign that gradients are masked."""
    reached = {False: np.zeros(ledger.fell.shape[1], bool), True: np.zeros(ledger.fell.shape[1], bool)}
    kinds = set()
    for cascade, fell in zip(cascades.values(), ledger.fell, strict=True):
        runs = runs_of(cascade)
        late = any(run.attack not in BLACK_BOX for run in runs)  # then a black box counts after the others only
        for number, run in enumerate(runs):
            kind = run.attack in BLACK_BOX
            if kind and late and all(earlier.attack in BLACK_BOX for earlier in runs[:number]):
                continue
            kinds.add(kind)
            reached[kind] |= fell == number
    if kinds != {False, True}:
        return Check("black box", True, "not looked at: it takes attacks of both kinds")
    only = int(np.sum(reached[True] & ~reached[False]))
    share = only / ledger.fell.shape[1]
    detail = f"{only} images ({100 * share:.2f} %) were fooled by attacks without gradients alone"
    return Check("black box", share <= _BLACK_BOX_SLACK, detail)


def verified(ledger: Ledger) -> Check:
    """Adversarial images that did not stand the second look."""
    bad = sum(ledger.rejected.values())
    counted = int(np.sum(ledger.fell > ROBUST))
    detail = f"{counted} adversarial images read back: in the ball, in the box, misclassified"
    if bad:
        detail += f"; {bad} others were not, and count as robust"
    return Check("verification", bad == 0, detail)
