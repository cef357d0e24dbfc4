"""How much each direction of a basis matters: soft weights in [0, 1] that may be learned (DGPM)."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from awp_tf.infra.errors import fraction, not_negative, one_of, positive
from awp_tf.types import Weights


@dataclasses.dataclass(frozen=True)
class Importance:
    """A rule for the weights lambda of Deng et al. (NeurIPS 2021), anew for each task.

    Attributes:
        rule: "one": all directions fully (GPM). "clip": lambda in [0, 1], learned, starts at 1. "sigmoid":
            sigmoid(temperature raw), raw is learned. "frozen": sigmoid(temperature start), which is what the released
            code comes to: it updates copies that nothing reads, so its lambda stays at 0.99995.
        rate: eta_2 in the paper.
        momentum: Of the weights' own gradient steps.
        ascend: Whether they go up the loss at the perturbed weights, as where those are looked for downhill
            (LookAhead); otherwise down.
        temperature: Of the sigmoid.
        start: The raw value of the sigmoid.
    """

    rule: str = "one"
    rate: float = 0.01
    momentum: float = 0.9
    ascend: bool = False
    temperature: float = 10.0
    start: float = 1.0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        one_of("Importance.rule", self.rule, ("one", "clip", "sigmoid", "frozen"))
        not_negative("Importance.rate", self.rate)
        fraction("Importance.momentum", self.momentum)
        positive("Importance.temperature", self.temperature)

    @property
    def first(self) -> float:
        """The raw value with which a task begins."""
        return self.start if self.rule in ("sigmoid", "frozen") else 1.0

    def value(self, raw: tf.Tensor) -> tf.Tensor:
        """Lambda, [d], of raw values."""
        match self.rule:
            case "one":
                return tf.ones_like(raw)
            case "clip":
                return raw  # kept in [0, 1] after each step, so that a weight at the edge can come back
            case "frozen":
                return tf.stop_gradient(tf.sigmoid(self.temperature * self.start * tf.ones_like(raw)))
        return tf.sigmoid(self.temperature * raw)


class SoftWeights(tf.Module):
    """The weights of all bases while they are learned.

    Attributes:
        rule: How.
        raw: Of each basis, [d].
    """

    def __init__(self, rule: Importance, sizes: Sequence[int], dtype: str = "float32") -> None:
        """They begin as a task begins.

        Args:
            rule: How they are learned.
            sizes: d of each basis.
            dtype: As that of the weights.
        """
        super().__init__(name="soft_weights")
        self.rule = rule
        self.raw = [tf.Variable(tf.fill([size], tf.cast(rule.first, dtype)), trainable=False) for size in sizes]
        self._velocity = [tf.Variable(tf.zeros([size], dtype), trainable=False) for size in sizes]

    def begin(self) -> None:
        """A new task, whose bases are others."""
        for raw in self.raw:
            raw.assign(tf.fill(raw.shape, tf.cast(self.rule.first, raw.dtype)))
        self.forget()

    def forget(self) -> None:
        """Forgets the momentum, as where the rate has changed."""
        for velocity in self._velocity:
            velocity.assign(tf.zeros_like(velocity))

    def values(self) -> list[tf.Tensor]:
        """Lambda of each basis, [d]."""
        return [self.rule.value(tf.convert_to_tensor(raw)) for raw in self.raw]

    def step(self, gradients: Weights, scale: tf.Tensor) -> None:
        """One step of gradient descent, or ascent, with momentum.

        Args:
            gradients: Of the loss at the perturbed weights in raw.
            scale: Of the rate.
        """
        rate = scale * (-self.rule.rate if self.rule.ascend else self.rule.rate)
        for raw, velocity, gradient in zip(self.raw, self._velocity, gradients, strict=True):
            velocity.assign(self.rule.momentum * velocity + gradient)
            moved = raw - tf.cast(rate, raw.dtype) * velocity
            raw.assign(tf.clip_by_value(moved, 0.0, 1.0) if self.rule.rule == "clip" else moved)
