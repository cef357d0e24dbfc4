"""What is exported, and how."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from awp_tf.export.heads import Head
from awp_tf.infra.errors import UserError, at_least


@dataclasses.dataclass(frozen=True)
class Servable:
    """What is exported.

    Attributes:
        model: The name under which it is served.
        network: A .keras file.
        images: A few real ones, uint8 [N, H, W, C], for parity and warm-up.
        class_names: In the order of the logits; empty where unknown.
        card: Its evaluation; None where there was none.
        heads: Of its tasks, each of which gets a signature; none where all tasks share all classes.
    """

    model: str
    network: pathlib.Path
    images: np.ndarray
    class_names: Sequence[str] = ()
    card: Mapping[str, Any] | None = None
    heads: Sequence[Head] = ()

    def __post_init__(self) -> None:
        """Raises UserError where the name could not be that of a folder of its own."""
        if not re.fullmatch(r"[^/\\.\x00][^/\\\x00]*", self.model) or self.model.isdigit():
            raise UserError(f"model: expected a plain name, received {self.model!r}.")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Which encoded images are decoded; what lies outside is an error before a pixel is read.

    A small file can hold a picture of a gigabyte, so its header is looked at first.

    Attributes:
        smallest_side: Pixels; less can hardly be a picture of anything.
        largest_side: Pixels; the decoded image takes largest_side^2 x channels bytes at most.
        largest_file: Bytes of the encoded image.
    """

    smallest_side: int = 4
    largest_side: int = 4096
    largest_file: int = 20_000_000

    def __post_init__(self) -> None:
        """Raises UserError where a limit makes no sense."""
        for name in ("smallest_side", "largest_side", "largest_file"):
            at_least(f"Limits.{name}", getattr(self, name), 1)
        if self.smallest_side > self.largest_side:
            raise UserError(f"Limits: expected smallest_side <= largest_side, received {self}.")


@dataclasses.dataclass(frozen=True)
class Export:
    """How a network is exported.

    Attributes:
        batch_sizes: For warm-up requests and the example of batching parameters.
        floats: Whether there is a signature for floats in [0, 1], too.
        limits: For encoded images.
        keep: How many versions stay, the newest; None keeps all.
    """

    batch_sizes: Sequence[int] = (1, 8, 64)
    floats: bool = False
    limits: Limits = Limits()
    keep: int | None = None

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        for size in self.batch_sizes:
            at_least("Export.batch_sizes", size, 1)
        if not self.batch_sizes:
            raise UserError("Export.batch_sizes: expected at least one.")
        if self.keep is not None:
            at_least("Export.keep", self.keep, 1)
