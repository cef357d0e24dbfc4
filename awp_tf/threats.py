"""Threat models: which perturbations of an image an adversary may make.

A threat is a ball around the image, in units of [0, 1] pixels, cut by the pixel box. It knows three
things: how to project onto the ball, which unit step climbs steepest, and how to draw a start.
"""

import dataclasses
import fractions
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import UserError, fixed, one_of, positive

T = TypeVar("T")


class Threat(Protocol):
    """A ball of radius epsilon around an image."""

    @property
    def epsilon(self) -> float:
        """The radius, in units of [0, 1] pixels."""
        ...

    def project(self, delta: tf.Tensor) -> tf.Tensor:
        """The point of the ball nearest to delta [B, H, W, C]."""
        ...

    def ascend(self, gradient: tf.Tensor) -> tf.Tensor:
        """The step of length one (in this norm) along which gradient [B, H, W, C] climbs steepest."""
        ...

    def sample(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """A random point of the ball in the shape of like [B, H, W, C]."""
        ...

    def edge(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """A random point at distance epsilon in the shape of like [B, H, W, C]."""
        ...

    def norm(self, delta: tf.Tensor) -> tf.Tensor:
        """The length of delta [B, H, W, C], shape [B]."""
        ...

    def reach(self, shape: Sequence[int]) -> float:
        """The epsilon whose ball holds the whole pixel box of images of a shape (H, W, C)."""
        ...


@dataclasses.dataclass(frozen=True)
class Linf:
    """Every pixel value may change by at most epsilon.

    Attributes:
        epsilon: The radius, in (0, 1]; a text such as "8/255" is read as a fraction.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.threats import Linf
        >>> print(Linf("8/255").project(tf.constant([[[[0.5]]]])).numpy().ravel().round(5))
        [0.03137]
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Raises UserError where epsilon is not a radius in pixel units."""
        object.__setattr__(self, "epsilon", _radius("Linf.epsilon", self.epsilon, largest=1.0))

    def project(self, delta: tf.Tensor) -> tf.Tensor:
        """See Threat."""
        return tf.clip_by_value(delta, -self.epsilon, self.epsilon)

    def ascend(self, gradient: tf.Tensor) -> tf.Tensor:
        """See Threat."""
        return tf.sign(gradient)

    def sample(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """Uniform in the ball."""
        return (2 * noise.uniform(seed, like) - 1) * self.epsilon

    def edge(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """See Threat: uniform, stretched until its largest entry is epsilon (AutoAttack's start)."""
        return _stretch(2 * noise.uniform(seed, like) - 1, self)

    def norm(self, delta: tf.Tensor) -> tf.Tensor:
        """See Threat."""
        return tf.reduce_max(tf.abs(delta), axis=_but_first(delta))

    def reach(self, shape: Sequence[int]) -> float:
        """See Threat."""
        return 1.0


@dataclasses.dataclass(frozen=True)
class L2:
    """The Euclidean norm of the change is at most epsilon.

    Attributes:
        epsilon: The radius in units of [0, 1] pixels, in (0, 10]; "128/255" is read as a fraction.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.threats import L2
        >>> print(L2(0.5).project(tf.constant([[[[0.6], [0.8]]]])).numpy().ravel().round(2))
        [0.3 0.4]
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Raises UserError where epsilon is not a radius in pixel units."""
        object.__setattr__(self, "epsilon", _radius("L2.epsilon", self.epsilon, largest=10.0))

    def project(self, delta: tf.Tensor) -> tf.Tensor:
        """See Threat. The 1e-12 is AutoAttack's; torch.renorm in the AWP authors' code has 1e-7."""
        norm = per_example(self.norm(delta), delta)
        return delta * (tf.minimum(norm, self.epsilon) / (norm + 1e-12))

    def ascend(self, gradient: tf.Tensor) -> tf.Tensor:
        """See Threat; zero where the gradient is zero."""
        return gradient / (per_example(self.norm(gradient), gradient) + 1e-12)

    def sample(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """Uniform direction and uniform length, as in the reference (not uniform in volume)."""
        direction = noise.normal(seed.fold(0), like)
        length = noise.uniform(seed.fold(1), tf.reshape(like, [tf.shape(like)[0], -1])[:, 0])
        return direction * per_example(self.epsilon * length / (self.norm(direction) + 1e-12), like)

    def edge(self, like: tf.Tensor, seed: noise.Seeded) -> tf.Tensor:
        """See Threat: uniform on the sphere."""
        return _stretch(noise.normal(seed, like), self)

    def norm(self, delta: tf.Tensor) -> tf.Tensor:
        """See Threat."""
        return tf.sqrt(tf.reduce_sum(tf.square(delta), axis=_but_first(delta)))

    def reach(self, shape: Sequence[int]) -> float:
        """See Threat."""
        return math.sqrt(math.prod(shape))


def parse(text: str) -> Threat:
    """The ball that a text such as "linf:8/255" or "l2:0.5" means.

    Raises:
        UserError: It means none.
    """
    kinds: dict[str, type[Linf] | type[L2]] = {"linf": Linf, "l2": L2}
    kind, _, epsilon = text.lower().partition(":")
    one_of("threat", kind, kinds)
    if not epsilon:
        raise UserError(f"threat: expected a radius too, for instance {kind}:8/255, received {text!r}.")
    return kinds[kind](epsilon)  # type: ignore[arg-type]  # a text is read as a fraction


def require_fixed(name: str, threat: Threat | None) -> None:
    """Raises UserError where the radius of what evaluates changes over time."""
    if threat is not None:
        advice = (
            "schedule that of training alone (gin: training/PGD.threat=@training/Linf(), training/Linf.epsilon=...)."
        )
        fixed(f"{name}: epsilon", threat.epsilon, advice)


class Attacker(Protocol):
    """What attacks: an attack, a protocol, a landscape."""

    @property
    def threat(self) -> Threat | None:
        """The ball; None where nothing is attacked."""
        ...


def require_one_ball(balls: Mapping[str, Threat | None], otherwise: str = "") -> None:
    """Raises UserError unless all balls are the same; None (no attack at all) goes with any.

    Args:
        balls: By what uses them: {"training": Linf(8 / 255), "validation": ...}.
        otherwise: What else can be done where they are meant to differ: ", or say ...".
    """
    used = {name: ball for name, ball in balls.items() if ball is not None}
    if len({repr(ball) for ball in used.values()}) > 1:
        said = ", ".join(f"{name} {ball}" for name, ball in used.items())
        raise UserError(
            f"threat: expected one ball in all parts of a run, received {said}; bind the threat of each part "
            f"(gin: THREAT for all){otherwise}."
        )


def per_image(values: tf.Tensor) -> tf.Tensor:
    """Values [B] as [B, 1, 1, 1], to go with images."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def per_example(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Values [B] as [B, 1, ...], of the rank of like."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def _but_first(tensor: tf.Tensor) -> list[int]:
    """The axes of one example."""
    return list(range(1, tensor.shape.rank))


def _stretch(delta: tf.Tensor, threat: Threat) -> tf.Tensor:
    return delta * (threat.epsilon / (per_example(threat.norm(delta), delta) + 1e-12))


def _radius(name: str, value: T, largest: float) -> T | float:
    """Value as a float; schedules and tensors are left as they are."""
    if not isinstance(value, (int, float, str)):
        return value
    try:
        radius = float(fractions.Fraction(value) if isinstance(value, str) else value)
    except (ValueError, ZeroDivisionError):
        raise UserError(f'{name}: expected a number or a fraction such as "8/255", received {value!r}.') from None
    positive(name, radius)
    if not radius <= largest:
        advice = f'pixels are in [0, 1] here, so write "{value}/255" for {value} grey levels'
        raise UserError(f"{name}: expected at most {largest:g}, received {value!r}; {advice}.")
    return radius
