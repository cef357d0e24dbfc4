"""What is drawn: along which directions, how far, on how many images."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from awp_tf.attacks import Attack
from awp_tf.infra.errors import UserError, at_least, not_negative, one_of
from awp_tf.threats import Threat, require_fixed

SHARPNESS_AT = (0.25, 0.5, 1.0)

Alphas = str | Sequence[float]


class Curve(NamedTuple):
    """Points to visit: w + sum of coefficient x direction.

    Attributes:
        name: For instance "random 1", "awp", "plane".
        coefficients: [points, directions].
        directions: Names of the directions.
        fixed: Whether images stay those that were crafted at w.
    """

    name: str
    coefficients: np.ndarray
    directions: tuple[str, ...]
    fixed: bool = False


@dataclasses.dataclass(frozen=True)
class Landscape:
    """How a weight-loss landscape is drawn (Wu et al., NeurIPS 2020, section 3 and appendix B).

    Attributes:
        attack: Finds the adversarial images, anew at every point; PGD-10 in the paper.
        alphas: Where, as "from:to:points" or as numbers; 0 must be among them. 0.25, 0.5 and 1 are added
            on both sides where they lie inside, since sharpness is read off there.
        directions: How many random directions.
        awp_length: Along the AWP direction, alpha = 1 stands for ||v|| = awp_length ||w||; 0 leaves it out.
        fixed: Also draw the loss on images that were crafted once, at alpha = 0.
        plane: Points of each axis of a plane through two random directions, as alphas; "" leaves it out.
        examples: On at most so many images, evenly spread; None is all.
        split: "train", as in the paper, or "test".
        batch_size: Images at a time.
        seed: What directions and noise depend on.
    """

    attack: Attack
    alphas: Alphas = "-1:1:21"
    directions: int = 3
    awp_length: float = 0.05
    fixed: bool = False
    plane: Alphas = ""
    examples: int | None = 1000
    split: str = "train"
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("Landscape.directions", self.directions, 1)
        not_negative("Landscape.awp_length", self.awp_length)
        one_of("Landscape.split", self.split, ("train", "test"))
        at_least("Landscape.batch_size", self.batch_size, 1)
        at_least("Landscape.seed", self.seed, 0)
        if self.examples is not None:
            at_least("Landscape.examples", self.examples, 1)
        require_fixed("Landscape", self.threat)
        _ = self.curves  # alphas are checked before any network is read

    @property
    def threat(self) -> Threat | None:
        """The ball of the attack."""
        return self.attack.threat

    @property
    def curves(self) -> list[Curve]:
        """Everything that is visited, in order."""
        alphas = _with_sharpness(_numbers("alphas", self.alphas))[:, None]
        random = [f"random {i + 1}" for i in range(self.directions)]
        curves = [Curve(name, alphas, (name,)) for name in random]
        if self.awp_length:
            curves.append(Curve("awp", alphas * self.awp_length, ("awp",)))
        if self.fixed:
            curves += [Curve(f"{name}, fixed images", alphas, (name,), fixed=True) for name in random]
        if self.plane:
            axis = _numbers("plane", self.plane)
            if len(axis) < 2:
                raise UserError(f"plane: expected at least 2 points of each axis, received {self.plane!r}.")
            grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
            curves.append(Curve("plane", grid, ("random 1", "random 2")))
        return curves


def _numbers(name: str, value: Alphas) -> np.ndarray:
    """Rising numbers, 0 among them."""
    try:
        if isinstance(value, str):
            first, last, points = value.split(":")
            numbers = np.linspace(float(first), float(last), int(points))
        else:
            numbers = np.array(value, np.float64)
    except ValueError:
        raise UserError(
            f"{name}: expected from:to:points, for instance -1:1:21, or numbers, received {value!r}."
        ) from None
    numbers = np.where(np.abs(numbers) < 1e-9, 0.0, numbers).reshape(-1)
    if not np.all(np.isfinite(numbers)) or 0.0 not in numbers:
        raise UserError(
            f"{name}: expected 0 (the weights themselves) among them, received {value!r}; "
            "-1:1:21 has it, an even number of points has not."
        )
    return np.unique(numbers)


def _with_sharpness(alphas: np.ndarray) -> np.ndarray:
    wanted = [sign * size for size in SHARPNESS_AT for sign in (-1, 1)]
    inside = [size for size in wanted if alphas[0] <= size <= alphas[-1]]
    near = [size for size in inside if np.abs(alphas - size).min() > 1e-9]
    return np.sort(np.concatenate([alphas, near]))
