"""How robustness is measured: which attacks, inside which ball, on how many images."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from awp_tf.attacks import PGD, Once, Search, Transfer
from awp_tf.attacks.autoattack import Cascade, named
from awp_tf.checks import UserError, at_least, one_of, positive
from awp_tf.robustness.classifier import Classifier
from awp_tf.threats import Linf, Threat

_MOST_SHARES = 8


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What `pipelines.evaluate` does.

    Attributes:
        threat: The ball.
        attacks: Names, as a list or joined by commas (see awp_tf.attacks.autoattack.named; also
            "transfer"), or Search objects. Each is measured on all images that are classified correctly.
        relative_step_size: Of PGD and CW, as a fraction of epsilon.
        examples: On at most so many images of a split, spread evenly; None is all.
        splits: "test", "train", or "both": then the robust generalisation gap is reported too.
        batch_size: Images at a time.
        seed: What all noise depends on.
        check_examples: On how many images masked gradients are looked for.
    """

    threat: Threat = Linf()
    attacks: str | Sequence[str | Search] = "standard"
    relative_step_size: float = 0.25
    examples: int | None = None
    splits: str = "test"
    batch_size: int = 250
    seed: int = 0
    check_examples: int = 200

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        positive("Protocol.relative_step_size", self.relative_step_size)
        if self.examples is not None:
            at_least("Protocol.examples", self.examples, 1)
        one_of("Protocol.splits", self.splits, ("test", "train", "both"))
        at_least("Protocol.batch_size", self.batch_size, 1)
        at_least("Protocol.seed", self.seed, 0)
        at_least("Protocol.check_examples", self.check_examples, 1)
        self.cascades(10, transfer=None, known_only=True)

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits, the one that is reported first coming first."""
        return ("test", "train") if self.splits == "both" else (self.splits,)

    @property
    def shares(self) -> int:
        """Into how many parts a batch is cut, to be searched side by side: one for each of a few CPU cores."""
        return 1 if tf.config.list_physical_devices("GPU") else min(os.cpu_count() or 1, _MOST_SHARES)

    @property
    def expects_randomised(self) -> bool:
        """Whether attacks average over the network's own noise."""
        return "rand" in self._items

    @property
    def _items(self) -> list[str | Search]:
        if isinstance(self.attacks, str):
            return [name.strip() for name in self.attacks.split(",")]
        return list(self.attacks)

    def cascades(self, classes: int, transfer: Classifier | None, *, known_only: bool = False) -> Mapping[str, Cascade]:
        """What is carried out, by name.

        Args:
            classes: Of the network.
            transfer: The network on which "transfer" crafts.
            known_only: Leave out what needs the other network: for a check of the names.

        Raises:
            UserError: A name is unknown or comes twice, or the other network is missing.
        """
        result: dict[str, Cascade] = {}
        for item in self._items:
            name = item if isinstance(item, str) else type(item).__name__.lower()
            if name in result:
                raise UserError(f"attacks: expected each name once, received {name!r} twice.")
            if name in ("natural", "clean", "") or (name == "transfer" and known_only):
                continue  # clean accuracy is always measured
            result[name] = self._cascade(item if isinstance(item, str) else Cascade({name: item}), classes, transfer)
        if not result and not known_only:
            raise UserError("attacks: expected at least one, for instance standard.")
        return result

    def _cascade(self, item: str | Cascade, classes: int, transfer: Classifier | None) -> Cascade:
        if isinstance(item, Cascade):
            return item
        if item != "transfer":
            return named(item, self.threat, classes=classes, relative_step_size=self.relative_step_size)
        if transfer is None:
            raise UserError("attacks: transfer needs --transfer_from=another.keras.")
        search = Once(PGD(self.threat, 20, self.relative_step_size))
        return Cascade({"transfer": Transfer(transfer.predict, search, f"{transfer.name} {transfer.digest}")})
