"""What is exported, and the robustness card that goes with it."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from awp_tf.evaluation.card import Card, markdown
from awp_tf.infra import provenance
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.networks.classifier import digest


@dataclasses.dataclass(frozen=True)
class Product:
    """What is exported.

    Attributes:
        model: The name under which it is served.
        network: A .keras file.
        images: A few real ones, uint8 [N, H, W, C], for parity and warm-up.
        class_names: In the order of the logits; empty where unknown.
        card: Its evaluation; None where there was none.
    """

    model: str
    network: pathlib.Path
    images: np.ndarray
    class_names: Sequence[str] = ()
    card: Card | None = None

    def __post_init__(self) -> None:
        """Raises UserError where the name could not be that of a folder of its own."""
        if not re.fullmatch(r"[^/\\.\x00][^/\\\x00]*", self.model) or self.model.isdigit():
            raise UserError(f"--model: expected a plain name, received {self.model!r}.")


def read_card(path: pathlib.Path, network: pathlib.Path) -> Card:
    """The robustness card of a network.

    Args:
        path: evaluation.json.
        network: The .keras file it has to belong to.

    Raises:
        UserError: It cannot be read, or belongs to another network.
    """
    try:
        card: Card = json.loads(path.read_text(encoding="utf-8"))
        measured = card["network"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected a robustness card (evaluation.json), which this is not ({error})."
        ) from error
    if measured != digest(network):
        raise UserError(
            f"{path}: expected the card of {network}, received that of another network; evaluate this one with "
            "pipelines.evaluate, or choose another --evaluation."
        )
    return card


def write_card(path: pathlib.Path, product: Product, parity: Mapping[str, float]) -> None:
    """Writes path.json and path.md: the evaluation, and what was exported; without one, that there was none.

    Args:
        path: Without a suffix.
        product: What was exported.
        parity: The largest difference to the network, by signature.
    """
    made: dict[str, Any] = {
        "model": product.model,
        "network_sha256": digest(product.network),
        "class_names": list(product.class_names),
        "parity": dict(parity),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
    }
    evaluated = product.card is not None
    content = {"evaluated": evaluated, "export": made, "evaluation": product.card}
    page = markdown(product.card) if product.card else f"# Robustness of {product.model}\n\n**Not evaluated.**\n"
    page += f"\nServed network: SHA-256 {made['network_sha256']}\n"
    write_text(path.with_name(f"{path.name}.json"), json.dumps(content, indent=2) + "\n")
    write_text(path.with_name(f"{path.name}.md"), page)
