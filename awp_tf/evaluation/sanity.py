"""Signs that a robust accuracy is not to be believed (Carlini et al., 2019; Croce et al., ICML 2022)."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.attacks.autoattack import Cascade
from awp_tf.attacks.search import climb
from awp_tf.data.batches import to_pixels
from awp_tf.data.splits import Split
from awp_tf.evaluation.state import ROBUST, EvaluationState, runs_of
from awp_tf.functional import robust
from awp_tf.losses import margin, misclassified
from awp_tf.networks.classifier import Classifier
from awp_tf.noise import EVALUATION, ImageSeeds, make_seed
from awp_tf.threats import Threat

BLACK_BOX = ("square", "spsa", "transfer")
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # of epsilon, where the curve is measured
_OWN = ("logits", "deterministic", "independent", "gradients")  # checks that need no attack
_APART = 1e-4  # of outputs of length 1; the official code's
_CURVE_STEPS, _FEW_STEPS, _MANY_STEPS = 20, 10, 50
_SLACK = 0.01  # of accuracy, within which two attacks count as equally strong
_WEAK = 0.05  # of the images: what PGD on the margin may find beyond an evaluation that used another loss
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


class AccuracyCurve(NamedTuple):
    """Accuracy under PGD on the margin, as the ball grows.

    Attributes:
        epsilons: Radii; the last one covers the whole pixel box.
        accuracies: In 0..1.
        images: On how many images.
    """

    epsilons: list[float]
    accuracies: list[float]
    images: int


@dataclasses.dataclass(eq=False)
class Sanity:
    """Looks at a classifier on a few images, before the evaluation proper.

    Attributes:
        classifier: The network.
        split: The images.
        threat: The ball of the evaluation.
        seed: What noise depends on.
        batch_size: Images at a time.
        randomised: Whether the attacks expect a network that draws noise.
    """

    classifier: Classifier
    split: Split
    threat: Threat
    seed: int = 0
    batch_size: int = 250
    randomised: bool = False
    _attacks: dict[int, Callable[..., tf.Tensor]] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def measurements(self) -> dict[str, Callable[[], Any]]:
        """What is to be done, by name; each gives what JSON can hold, and conclude() takes it all together."""
        own = {name: getattr(self, name) for name in _OWN}
        attacks = {self._name(*point): functools.partial(self.fooled, *point) for point in self._points()}
        return {**own, **attacks}

    def conclude(self, measured: Mapping[str, Any]) -> tuple[list[Check], AccuracyCurve]:
        """The checks and the curve."""
        checks = [Check(*measured[name]) for name in _OWN]
        total, epsilon = len(self.split), self.threat.epsilon
        few, many = (1 - len(measured[self._name(n, epsilon)]) / total for n in (_FEW_STEPS, _MANY_STEPS))
        detail = f"PGD-{_FEW_STEPS} {100 * few:.1f} %, PGD-{_MANY_STEPS} {100 * many:.1f} %"
        checks.append(Check("more steps", many <= few + max(_SLACK, 1.5 / total), detail))
        epsilons = self._epsilons()
        accuracies = [1 - len(measured[self._name(_CURVE_STEPS, each)]) / total for each in epsilons]
        left = round(accuracies[-1] * total)
        detail = f"{left} of {total} images are still classified correctly where every pixel may take any value"
        checks.append(Check("unbounded attack", left <= max(1, _SLACK * total), detail))
        return checks, AccuracyCurve(epsilons, accuracies, total)

    def strength(self, measured: Mapping[str, Any], robust: np.ndarray) -> Check:
        """An evaluation that calls images robust which plain PGD on the margin fools is too weak.

        Args:
            measured: What was found.
            robust: What the evaluation says of these images, [M].
        """
        missed = int(robust[measured[self._name(_CURVE_STEPS, self.threat.epsilon)]].sum())
        detail = f"PGD-{_CURVE_STEPS} on the margin fooled {missed} of {len(robust)} images that are called robust"
        return Check("strength", missed <= _WEAK * len(robust), detail)

    def logits(self) -> Check:
        """Outputs that look like probabilities: a softmax flattens the gradient of every loss on logits."""
        z = self._outputs()
        alike = z.min() > -1e-5 and z.max() < 1 + 1e-5
        detail = "outputs are probabilities; give the network before its softmax" if alike else "outputs are logits"
        return Check("logits", not alike, detail)

    def deterministic(self) -> Check:
        """Five passes that do not agree; the thresholds are the official code's."""
        passes = [self._outputs() for _ in range(5)]
        right = {int((z.argmax(1) == self.split.labels).sum()) for z in passes}
        apart = max(_apart(a, b) for a, b in itertools.combinations(passes, 2))
        if len(right) == 1 and apart <= _APART:
            return Check("deterministic", True, "five passes agree")
        if self.randomised:
            return Check("deterministic", True, "outputs are randomised, which the attacks take into account")
        advice = "so an attack may fail by chance; use the attacks of version rand"
        return Check("deterministic", False, f"outputs are randomised, {advice}")

    def independent(self) -> Check:
        """Outputs that depend on the other images of a batch: as fooled ones leave, the network would change.

        Every second image is replaced by a black one; batches of one shape are computed alike, in 16 bits too.
        """
        if self.randomised:
            return Check("independent", True, "outputs are randomised, so this was not looked at")
        apart = 0.0
        for x, *_ in self._batches():
            others = tf.where((tf.range(len(x)) % 2 == 0)[:, None, None, None], x, tf.zeros_like(x))
            apart = max(apart, _apart(*(self.classifier.predict(each).numpy()[::2] for each in (x, others))))
        if apart <= _APART:
            return Check("independent", True, "no image's outputs depend on the others of its batch")
        return Check("independent", False, "an image's outputs depend on the others of its batch")

    def gradients(self) -> Check:
        """Images whose margin has no gradient at all: rounding, or a step function."""
        flat, finite = 0, True
        for x, labels, _ in self._batches():
            wrong, _, gradient = climb(functools.partial(self._margin, labels), x)
            flat += int(np.sum(tf.reduce_all(gradient == 0, axis=[1, 2, 3]).numpy() & ~wrong.numpy()))
            finite &= bool(np.isfinite(gradient).all())
        detail = f"{flat} of {len(self.split)} images have a zero gradient{'' if finite else ', some a NaN'}"
        return Check("gradients", finite and flat == 0, detail)

    def fooled(self, steps: int, epsilon: float) -> list[int]:
        """Places of the images that PGD on the margin fools; wrongly classified ones are among them."""
        attack = self._attack(steps)
        wrong = [attack(*batch, tf.constant(epsilon, self.classifier.dtype)).numpy() for batch in self._batches()]
        return [int(place) for place in np.flatnonzero(np.concatenate(wrong))]

    def _points(self) -> list[tuple[int, float]]:
        """(Steps, epsilon) of each attack."""
        steps = [(n, self.threat.epsilon) for n in (_FEW_STEPS, _MANY_STEPS)]
        return [*steps, *((_CURVE_STEPS, epsilon) for epsilon in self._epsilons())]

    def _epsilons(self) -> list[float]:
        everything = self.threat.reach(self.classifier.shape)
        return [*(m * self.threat.epsilon for m in MULTIPLES if m * self.threat.epsilon < everything), everything]

    def _name(self, steps: int, epsilon: float) -> str:
        return f"PGD-{steps} at {epsilon!r}"

    def _attack(self, steps: int) -> Callable[..., tf.Tensor]:
        """One trace for all epsilons, kept as long as this object."""
        if steps not in self._attacks:
            self._attacks[steps] = self._trace(steps)
        return self._attacks[steps]

    def _trace(self, steps: int) -> Callable[..., tf.Tensor]:
        def wrong(x: tf.Tensor, labels: tf.Tensor, image: tf.Tensor, epsilon: tf.Tensor) -> tf.Tensor:
            threat = dataclasses.replace(self.threat, epsilon=epsilon)  # type: ignore[type-var]
            seeds = ImageSeeds(make_seed(self.seed, EVALUATION).key, image)
            adversarial = PGD(threat, steps)(lambda z: self._margin(labels, z)[0], x, seeds)
            return ~robust(self.classifier.predict, x, adversarial, labels)

        return tf.function(wrong, autograph=False, reduce_retracing=True)

    def _batches(self) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
        """(Images in [0, 1], labels, places)."""
        for first in range(0, len(self.split), self.batch_size):
            part = self.split.take(slice(first, first + self.batch_size))
            places = tf.range(first, first + len(part), dtype=tf.int64)
            yield (
                to_pixels(tf.constant(np.asarray(part.images)), self.classifier.dtype),
                tf.constant(part.labels),
                places,
            )

    def _outputs(self) -> np.ndarray:
        return np.concatenate([self.classifier.predict(x).numpy() for x, *_ in self._batches()])

    def _margin(self, labels: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.classifier.predict(x)
        return margin(logits, labels), misclassified(logits, labels)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far outputs of the same images are apart, at most, each image's scaled to length 1."""
    unit = [z / (np.linalg.norm(z, axis=1, keepdims=True) + 1e-10) for z in (one, other)]
    return float(np.linalg.norm(unit[0] - unit[1], axis=1).max())


def black_box(cascades: Mapping[str, Cascade], state: EvaluationState) -> Check:
    """Images that withstood attacks with gradients and were fooled by one without: a sign that gradients are masked."""
    images = state.fooled_by.shape[1]
    fooled_by_white, fooled_by_black, withstood_white = (np.zeros(images, bool) for _ in range(3))
    for cascade, fooled_by in zip(cascades.values(), state.fooled_by, strict=True):
        for number, run in enumerate(runs_of(cascade)):
            if run.attack in BLACK_BOX:
                fooled_by_black |= fooled_by == number
            else:
                fooled_by_white |= fooled_by == number
                withstood_white |= (fooled_by > number) | (fooled_by == ROBUST)
    only = int(np.sum(fooled_by_black & withstood_white & ~fooled_by_white))
    share = only / images
    detail = f"{only} images ({100 * share:.2f} %) withstood attacks with gradients and were fooled by one without"
    return Check("black box", share <= _BLACK_BOX_SLACK, detail)


def verification(state: EvaluationState, *, randomised: bool) -> Check:
    """Images that were claimed to be fooled, were not when read back, and were not fooled later either."""
    bad = int(np.sum(state.rejected & (state.fooled_by == ROBUST)))
    counted = int(np.sum(state.fooled_by > ROBUST))
    detail = f"{counted} adversarial images read back: in the ball, in the box, misclassified"
    if bad:
        detail += f"; {bad} others were not, and count as robust"
    return Check("verification", bad == 0 or randomised, detail)
