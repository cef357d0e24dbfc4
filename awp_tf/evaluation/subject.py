"""What is evaluated, on which images."""

import dataclasses
from collections.abc import Mapping, Sequence

from awp_tf.data.sources import Split, check_split
from awp_tf.infra.errors import UserError
from awp_tf.networks.classifier import Classifier


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
