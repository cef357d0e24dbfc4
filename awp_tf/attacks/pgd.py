"""Projected gradient descent (Madry et al., ICLR 2018) and its kin: objectives, starts, FGSM, restarts, no attack."""

import dataclasses
from typing import Protocol

import tensorflow as tf

from awp_tf import noise
from awp_tf.box import PIXELS, Limits, clip, clip_delta, require_pixels
from awp_tf.infra.errors import at_least, not_negative, positive
from awp_tf.losses import cross_entropy
from awp_tf.threats import Threat, per_example
from awp_tf.types import Objective, Predict


def untargeted(predict: Predict, labels: tf.Tensor) -> Objective:
    """Cross-entropy with the true labels [B]: away from the right class.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.attacks import untargeted
        >>> predict = lambda x: tf.reshape(x, [-1, 2])  # two pixels as the logits of two classes
        >>> print(untargeted(predict, tf.constant([0]))(tf.zeros([1, 1, 2, 1])).numpy().round(3))  # log 2
        [0.693]
    """
    return lambda x: cross_entropy(predict(x), labels)


def targeted(predict: Predict, targets: tf.Tensor) -> Objective:
    """Minus cross-entropy with chosen wrong classes [B]: towards the target."""
    return lambda x: -cross_entropy(predict(x), targets)


class Start(Protocol):
    """Draws the first perturbation of images x [B, H, W, C]."""

    def __call__(self, threat: Threat, x: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """The first perturbation, in the shape of x; it need not respect the pixel box."""
        ...


@dataclasses.dataclass(frozen=True)
class ZeroStart:
    """At the image itself, as FGSM does."""

    def __call__(self, threat: Threat, x: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """See Start."""
        return tf.zeros_like(x)


@dataclasses.dataclass(frozen=True)
class UniformStart:
    """At a random point of the ball (Madry et al., ICLR 2018)."""

    def __call__(self, threat: Threat, x: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """See Start."""
        return threat.sample(x, seed)


@dataclasses.dataclass(frozen=True)
class GaussianStart:
    """Near the image: std * N(0, 1), as TRADES and MART do; at x itself TRADES' KL has no gradient.

    Attributes:
        std: Standard deviation in units of [0, 1] pixels.
    """

    std: float = 0.001

    def __post_init__(self) -> None:
        """Raises UserError where std is negative."""
        not_negative("GaussianStart.std", self.std)

    def __call__(self, threat: Threat, x: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """See Start."""
        return threat.project(self.std * noise.normal(seed, x))


class Attack(Protocol):
    """A search for the worst image near each x."""

    @property
    def threat(self) -> Threat | None:
        """The ball it searches; None where it moves nothing."""
        ...

    def __call__(
        self, objective: Objective, x: tf.Tensor, seed: noise.Seeded, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Images [B, H, W, C] inside the threat's ball around x and inside [0, 1].

        Args:
            objective: What to maximise, per image.
            x: Images in [0, 1], shape [B, H, W, C].
            seed: What the attack's noise depends on.
            start: Images to continue from, in place of the attack's own start.

        Raises:
            UserError: Images are outside [0, 1] (of PGD and NFGSM; in a graph tf.errors.InvalidArgumentError, under XLA
                nothing).
        """
        ...


@dataclasses.dataclass(frozen=True)
class Clean:
    """No attack: the null object that turns a robust method into ordinary training."""

    threat = None

    def __call__(
        self, objective: Objective, x: tf.Tensor, seed: noise.Seeded, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns x."""
        return x


@dataclasses.dataclass(frozen=True)
class PGD:
    """Repeats: one steepest ascent step, back into the ball, back into the pixel box (Madry et al., ICLR 2018).

    Attributes:
        threat: The ball.
        steps: How many gradient steps.
        relative_step_size: Length of a step as a fraction of epsilon (2/255 of 8/255 is 0.25).
        start: Where to begin.
        box: Smallest and largest value of what is attacked; None where it has none (awp_tf.perturbed: tables,
            embeddings). Images have (0, 1).

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.attacks import PGD
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.threats import Linf
        >>> brighter = lambda x: tf.reduce_sum(x, axis=[1, 2, 3])  # any function to maximise will do
        >>> x_adv = PGD(Linf(0.1), steps=10)(brighter, tf.fill([1, 1, 2, 1], 0.5), make_seed(0))
        >>> print(x_adv.numpy().ravel().round(3))
        [0.6 0.6]
    """

    threat: Threat
    steps: int = 10
    relative_step_size: float = 0.25
    start: Start = UniformStart()
    box: Limits = PIXELS

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("PGD.steps", self.steps, 1)
        positive("PGD.relative_step_size", self.relative_step_size)

    def __call__(
        self, objective: Objective, x: tf.Tensor, seed: noise.Seeded, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """See Attack."""
        x = require_pixels(x, self.box)
        first = self.start(self.threat, x, seed) if start is None else start - x
        step_size = self.relative_step_size * self.threat.epsilon

        def step(i: tf.Tensor, delta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            gradient = gradient_of(objective, x + delta)
            moved = self.threat.project(delta + step_size * self.threat.ascend(gradient))
            return i + 1, clip_delta(moved, x, self.box)

        counter = tf.constant(0)
        _, delta = tf.while_loop(
            lambda i, _: i < self.steps, step, (counter, clip_delta(first, x, self.box)), maximum_iterations=self.steps
        )
        return tf.stop_gradient(clip(x + delta, self.box))


@dataclasses.dataclass(frozen=True)
class FGSM(PGD):
    """One full-length step from the image itself (Goodfellow et al., ICLR 2015)."""

    steps: int = 1
    relative_step_size: float = 1.0
    start: Start = ZeroStart()


@dataclasses.dataclass(frozen=True)
class Restarts:
    """Repeats an attack with other noise and keeps, for each image, the worst result.

    Attributes:
        attack: What to repeat.
        times: How often.

    Example:
        >>> from awp_tf.attacks import PGD, Restarts
        >>> from awp_tf.threats import Linf
        >>> Restarts(PGD(Linf(0.1)), times=5).threat
        Linf(epsilon=0.1)
    """

    attack: Attack
    times: int = 5

    def __post_init__(self) -> None:
        """Raises UserError where times is not at least 1."""
        at_least("Restarts.times", self.times, 1)

    @property
    def threat(self) -> Threat | None:
        """That of the attack."""
        return self.attack.threat

    def __call__(
        self, objective: Objective, x: tf.Tensor, seed: noise.Seeded, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """See Attack; the first run goes on from start, each later one begins anew, with noise of its own."""
        worst = self.attack(objective, x, seed.fold(0), start)
        value = objective(worst)

        def again(i: tf.Tensor, worst: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            found = self.attack(objective, x, seed.fold(i))
            found_value = objective(found)
            better = found_value > value
            return i + 1, tf.where(per_example(better, x), found, worst), tf.where(better, found_value, value)

        loop = (tf.constant(1), worst, value)
        return tf.while_loop(lambda i, *_: i < self.times, again, loop)[1]


def gradient_of(objective: Objective, x: tf.Tensor) -> tf.Tensor:
    """D objective / dx, [B, H, W, C]; the sum over images keeps each image's gradient its own."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = tf.reduce_sum(objective(x))
    # Zero, not None, where nothing connects them: a rounded input has no gradient, and that is no error.
    return tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
