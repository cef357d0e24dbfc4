"""Where an attack starts inside the ball."""

import dataclasses
from typing import Protocol

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import not_negative
from awp_tf.threats import Threat


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
    """Near the image: std * N(0, 1), as TRADES and MART do, whose objectives are flat at x itself.

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
