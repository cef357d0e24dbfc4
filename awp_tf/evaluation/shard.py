"""The share of one machine in an evaluation."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Self

import numpy as np

from awp_tf.data.splits import Split
from awp_tf.infra.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """Every count-th image of each split, from the number-th on; all of them by default.

    Attributes:
        number: Which shard, from 1.
        count: How many there are.

    Example:
        >>> from awp_tf.evaluation.shard import Shard
        >>> Shard.parse("2/3").places(7).tolist()
        [1, 4]
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that a person names, for instance "3/8".

        Raises:
            UserError: It is none.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UserError(f"shard: expected one of how many, from 1 on: 1/8, 2/8 ... 8/8, received {text!r}.")
        return cls(number, count)

    def __str__(self) -> str:
        """As it is parsed."""
        return f"{self.number}/{self.count}"

    def places(self, total: int) -> np.ndarray:
        """The places of its images among so many, rising."""
        return np.arange(self.number - 1, total, self.count)

    def require_fit(self, splits: Mapping[str, Split]) -> None:
        """Raises UserError where there are fewer images than shards."""
        fewest = min(map(len, splits.values()))
        if self.count > fewest:
            raise UserError(f"shard: expected at most {fewest} shards, one image each, received {self}.")
