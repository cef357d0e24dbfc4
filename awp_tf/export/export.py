"""Exports a network from end to end: graph, warm-up, robustness card, parity, version folder."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from awp_tf.evaluation.card import Card, markdown
from awp_tf.export.heads import require_heads
from awp_tf.export.parity import require_parity
from awp_tf.export.settings import Export, Servable
from awp_tf.export.signatures import ServingModule
from awp_tf.export.versions import check_version, staging, write_configs, write_warmup
from awp_tf.infra import provenance
from awp_tf.infra.errors import UserError, optional
from awp_tf.infra.files import write_text
from awp_tf.networks.classifier import digest, keras_file, of_keras

CARD = "assets.extra/robustness_card"
_PARITY_IMAGES = 32


def export(servable: Servable, settings: Export, base: str, *, version: int | None = None) -> pathlib.Path:
    """Writes <base>/<model>/<version>/ for TF Serving.

    Args:
        servable: What.
        settings: How.
        base: Where; a server's --model_base_path is <base>/<model>.
        version: Its number; None is the next free one.

    Returns:
        The folder of the version.

    Raises:
        UserError: Something does not fit, or the written graph answers otherwise than the network;
            nothing stays.
    """
    root = pathlib.Path(base)
    model = root / servable.model
    check_version(model, version)
    optional("tensorflow_serving.apis.predict_pb2", "serving")  # known before a graph is traced
    network = read_network(servable)
    with staging(model, version, settings.keep) as (folder, number):
        served = ServingModule(network, servable.class_names, settings.limits, servable.heads)
        tf.saved_model.save(served.module, str(folder), signatures=served.signatures(floats=settings.floats))
        tasks = [head.signature for head in servable.heads]
        write_warmup(folder, servable.model, servable.images, settings.batch_sizes, tasks)
        found = require_parity(folder, network, servable.images[:_PARITY_IMAGES], servable.heads)
        write_card(folder / CARD, servable, found)
    write_configs(root, settings.batch_sizes)
    return model / str(number)


def read_network(servable: Servable) -> keras.Model:
    """Reads the network.

    Raises:
        UserError: It cannot be read, or images, class names or heads do not fit it.
    """
    network = keras_file(servable.network)
    classifier = of_keras(network, name=str(servable.network))
    if servable.images.dtype != np.uint8 or servable.images.shape[1:] != classifier.shape or not len(servable.images):
        raise UserError(
            f"{servable.network}: expected uint8 images {list(classifier.shape)} to try it with, received "
            f"{servable.images.dtype} {list(servable.images.shape[1:])}."
        )
    if servable.class_names and len(servable.class_names) != classifier.classes:
        raise UserError(
            f"{servable.network}: expected {classifier.classes} class names, received {len(servable.class_names)}."
        )
    require_heads(str(servable.network), servable.heads, classifier.classes)
    if classifier.shape[-1] not in (1, 3):
        raise UserError(f"{servable.network}: expected images of 1 or 3 channels, received {classifier.shape[-1]}.")
    return network


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
            f"{path}: expected the card of {network}, received that of another network; evaluate this one, or "
            "give its own card."
        )
    return card


def write_card(path: pathlib.Path, servable: Servable, parity: Mapping[str, float]) -> None:
    """Writes path.json and path.md: the evaluation, and what was exported; without one, that there was none.

    Args:
        path: Without a suffix.
        servable: What was exported.
        parity: The largest difference to the network, by signature.
    """
    made: dict[str, Any] = {
        "model": servable.model,
        "network_sha256": digest(servable.network),
        "class_names": list(servable.class_names),
        "heads": [dataclasses.asdict(head) | {"signature": head.signature} for head in servable.heads],
        "parity": dict(parity),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
    }
    evaluated = servable.card is not None
    content = {"evaluated": evaluated, "export": made, "evaluation": servable.card}
    page = markdown(servable.card) if servable.card else f"# Robustness of {servable.model}\n\n**Not evaluated.**\n"
    page += f"\nServed network: SHA-256 {made['network_sha256']}\n{_tasks(servable)}"
    write_text(path.with_name(f"{path.name}.json"), json.dumps(content, indent=2) + "\n")
    write_text(path.with_name(f"{path.name}.md"), page)


def _tasks(servable: Servable) -> str:
    """What the page says of tasks; nothing where there are none."""
    if not servable.heads:
        return ""
    rows = [
        f"| {head.name} | {head.signature} | {', '.join(map(str, head.classes))} | {', '.join(head.class_names)} |\n"
        for head in servable.heads
    ]
    title = "| task | signature in TF Serving | classes | class names |\n| --- | --- | --- | --- |\n"
    measured = "\nThe evaluation above is that of all classes; within a task fewer are told apart.\n"
    return f"\n## Tasks\n\n{title}{''.join(rows)}{measured if servable.card else ''}"
