"""Exports a network from end to end: graph, warm-up, card, parity, version folder."""

import dataclasses
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from awp_tf.export.card import Product, write_card
from awp_tf.export.parity import require_parity
from awp_tf.export.serving_files import write_configs, write_warmup
from awp_tf.export.signatures import Limits, Served
from awp_tf.export.versions import check_version, staged
from awp_tf.infra.errors import UserError, at_least
from awp_tf.networks.classifier import keras_file, of_keras

CARD = "assets.extra/robustness_card"
_PARITY_IMAGES = 32


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


def export(product: Product, settings: Export, base: str, *, version: int | None = None) -> pathlib.Path:
    """Writes <base>/<model>/<version>/ for TF Serving.

    Args:
        product: What.
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
    model = root / product.model
    check_version(model, version)
    network = checked_network(product)
    with staged(model, version, settings.keep) as (folder, number):
        served = Served(network, product.class_names, settings.limits)
        tf.saved_model.save(served.module, str(folder), signatures=served.signatures(floats=settings.floats))
        write_warmup(folder, product.model, product.images, settings.batch_sizes)
        found = require_parity(folder, network, product.images[:_PARITY_IMAGES])
        write_card(folder / CARD, product, found)
    write_configs(root, settings.batch_sizes)
    return model / str(number)


def checked_network(product: Product) -> keras.Model:
    """Reads the network.

    Raises:
        UserError: It cannot be read, or images and class names do not fit it.
    """
    network = keras_file(product.network)
    classifier = of_keras(network, name=str(product.network))
    if product.images.dtype != np.uint8 or product.images.shape[1:] != classifier.shape or not len(product.images):
        raise UserError(
            f"{product.network}: expected uint8 images {list(classifier.shape)} to try it with, received "
            f"{product.images.dtype} {list(product.images.shape[1:])}."
        )
    if product.class_names and len(product.class_names) != classifier.classes:
        raise UserError(
            f"{product.network}: expected {classifier.classes} class names, received {len(product.class_names)}."
        )
    if classifier.shape[-1] not in (1, 3):
        raise UserError(f"{product.network}: expected images of 1 or 3 channels, received {classifier.shape[-1]}.")
    return network
