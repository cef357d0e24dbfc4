"""What is evaluated (Subject) and how (Protocol): which attacks, inside which ball, on how many images."""

import dataclasses
from collections.abc import Mapping, Sequence

import tensorflow as tf

from awp_tf.attacks import PGD, LastIterate, Search, Transfer
from awp_tf.attacks.autoattack import AutoAttack, Cascade, cascade_of
from awp_tf.data.splits import Split, check_split
from awp_tf.infra import cpu
from awp_tf.infra.errors import UserError, at_least, one_of, positive
from awp_tf.networks.classifier import Classifier
from awp_tf.threats import Threat, require_fixed

_SHARE = 32  # images that a core searches at a time: what of them is in the making should stay in its cache

Item = str | Search | AutoAttack


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What `pipelines.evaluate` does.

    Attributes:
        threat: The ball.
        attacks: Names, as a list or joined by commas (see awp_tf.attacks.autoattack.ATTACKS), or Search and AutoAttack
            objects. Each is measured on all images that are classified correctly.
        relative_step_size: Of PGD and CW, as a fraction of epsilon.
        examples: On at most so many images of a split, spread evenly; None is all.
        splits: "test", "train", or "both": then the robust generalisation gap is reported too.
        batch_size: Images at a time.
        seed: What all noise depends on.
        check_examples: On how many images masked gradients are looked for.
    """

    threat: Threat
    attacks: str | Sequence[Item] = "standard"
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
        require_fixed("Protocol", self.threat)
        _ = self._known  # names are checked before any data is read

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits, the one that is reported first coming first."""
        return ("test", "train") if self.splits == "both" else (self.splits,)

    def shares(self, images: int) -> int:
        """Into how many parts a batch of so many images is cut, to be searched side by side and in turn."""
        if tf.config.list_physical_devices("GPU"):
            return 1
        return min(images, cpu.threads() * -(-images // (cpu.threads() * _SHARE)))

    @property
    def expects_randomised(self) -> bool:
        """Whether all attacks average over the network's own noise."""
        searches = [search for cascade in self._known.values() for search in cascade.searches.values()]
        return bool(searches) and all(search.randomised for search in searches)

    @property
    def _known(self) -> Mapping[str, Cascade]:
        """What can be built without knowing a network: everything but "transfer"."""
        items = {name: item for name, item in self._items.items() if name != "transfer"}
        return {name: self._cascade(item, 10, None) for name, item in items.items()}

    @property
    def _items(self) -> dict[str, Item]:
        """What was asked for by name; clean accuracy, which is always measured, left out."""
        items = self.attacks.split(",") if isinstance(self.attacks, str) else self.attacks
        result: dict[str, Item] = {}
        for item in items:
            name = _name(item)
            if name in result:
                raise UserError(f"attacks: expected each name once, received {name!r} twice.")
            if name not in ("natural", "clean", ""):
                result[name] = name if isinstance(item, str) else item
        return result

    def cascades(self, classes: int, transfer: Classifier | None) -> Mapping[str, Cascade]:
        """What is carried out, by name.

        Args:
            classes: Of the network.
            transfer: The network on which "transfer" crafts.

        Raises:
            UserError: There is no attack, one does not fit so many classes, or the other network is missing or unused.
        """
        if transfer is not None and "transfer" not in self._items:
            raise UserError(f"transfer_from: expected the attack transfer among attacks, received {self.attacks!r}.")
        result = {name: self._cascade(item, classes, transfer) for name, item in self._items.items()}
        if not result:
            raise UserError("attacks: expected at least one, for instance standard.")
        for name, cascade in result.items():
            for search in cascade.searches.values():
                _require_fit(name, search, classes)
        return result

    def _cascade(self, item: Item, classes: int, transfer: Classifier | None) -> Cascade:
        if item == "transfer":
            if transfer is None:
                raise UserError("attacks: expected a network for transfer to craft on, received none (transfer_from).")
            search = LastIterate(PGD(self.threat, 20, self.relative_step_size))
            return Cascade({"transfer": Transfer(transfer.predict, search, f"{transfer.name} {transfer.digest}")})
        if isinstance(item, str):
            return cascade_of(item, self.threat, classes=classes, relative_step_size=self.relative_step_size)
        if item.threat != self.threat:
            raise UserError(f"attacks: expected all in {self.threat}, received {item}; bind its threat too.")
        return item.cascade(classes) if isinstance(item, AutoAttack) else Cascade({_name(item): item})


def _name(item: Item) -> str:
    if isinstance(item, AutoAttack):
        return item.version
    return item.strip() if isinstance(item, str) else type(item).__name__.lower()


def _require_fit(name: str, search: Search, classes: int) -> None:
    least = {"dlr": 3, "targeted-dlr": 4}.get(getattr(search, "loss", ""), 2)
    if search.targets >= classes or classes < least:
        raise UserError(f"attacks: {name} expects more than {classes} classes, received {search}.")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated on what.

    Attributes:
        classifier: The network; it is not changed.
        splits: "test" and "train", as far as the protocol wants them.
        name: Of the network, on the card.
        data: Name of the data.
        class_names: For the pictures; empty where unknown.
        transfer: The network on which the attack "transfer" crafts.
        config: The resolved configuration, for its hash.
    """

    classifier: Classifier
    splits: Mapping[str, Split]
    name: str = "network"
    data: str = "data"
    class_names: Sequence[str] = ()
    transfer: Classifier | None = None
    config: str = ""

    @property
    def summary(self) -> str:
        """What is evaluated, in a line."""
        images = ", ".join(f"{len(split):,} {part}" for part, split in self.splits.items())
        names = f" ({', '.join(self.class_names)})" if 0 < len(self.class_names) <= 10 else ""
        return f"{self.name} on {self.data}: {images} images, {self.classifier.classes} classes{names}"

    def __post_init__(self) -> None:
        """Raises UserError where images or classes do not fit the network."""
        network = self.classifier
        for part, split in self.splits.items():
            check_split(f"{self.data} ({part})", split)
            shape = split.images.shape[1:]
            if tuple(shape) != tuple(network.shape):
                expected = f"images {list(network.shape)} (height, width, channels)"
                raise UserError(f"{network.name}: expected {expected}, received {list(shape)} from {self.data}.")
            known = len(self.class_names) or int(split.labels.max()) + 1
            if known > network.classes or (self.class_names and known != network.classes):
                raise UserError(
                    f"{network.name}: expected {network.classes} classes, received {known} from {self.data}."
                )
        other = self.transfer
        if other and (other.shape, other.classes) != (network.shape, network.classes):
            raise UserError(
                f"{other.name}: expected a network from {list(network.shape)} to {network.classes} classes to transfer "
                f"from, received one from {list(other.shape)} to {other.classes}."
            )
