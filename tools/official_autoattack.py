"""Our AutoAttack and the official one (fra31/auto-attack) on the same weights and images."""

import pathlib
import re
import sys
import tempfile
import time

import keras
import numpy as np

import awp_tf.networks
from awp_tf.data.sources import Split
from awp_tf.evaluation.cascades import Assessment
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.state import result_of
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import duration
from awp_tf.networks.classifier import of_keras
from awp_tf.threats import Threat
from tools import torch_preact_resnet

Stages = dict[str, tuple[float, float]]


def row(name: str, accuracy: float, seconds: float, theirs: float, their_seconds: float) -> list[str]:
    """One line of the table."""
    return [
        name,
        f"{100 * accuracy:.2f} %",
        f"{100 * theirs:.2f} %",
        f"{100 * (accuracy - theirs):+.2f}",
        duration(seconds),
        duration(their_seconds),
        f"{their_seconds / seconds:.2f}",
    ]


def ours(network: keras.Model, split: Split, name: str, threat: Threat, batch_size: int) -> Stages:
    """(Robust accuracy, seconds), tracing included, of an attack, or after each attack of "standard"."""
    protocol = Protocol(threat=threat, attacks=name, batch_size=batch_size)
    classifier = of_keras(network)
    cascades = protocol.cascades(classifier.classes, None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        state = Assessment(classifier, split, cascades, protocol, pathlib.Path(folder) / "state").run()
        total = time.perf_counter() - start
    result = result_of(state, split, cascades)
    stages = {key: (float(flags.mean()), result.seconds.get(key, 0.0)) for key, flags in result.after.items()}
    if len(stages) == 1:
        return {name: (float(result.robust[name].mean()), total)}
    return {**stages, name: (float(result.robust[name].mean()), total)}


class Official:
    """The official code on the same weights and images."""

    def __init__(self, checkout: str, network: keras.Model, split: Split, threat: Threat, batch_size: int) -> None:
        """Builds the network in PyTorch and checks that it agrees.

        Raises:
            UserError: The checkout is something else, or the networks disagree.
        """
        if not (pathlib.Path(checkout) / "autoattack" / "autopgd_base.py").is_file():
            raise UserError(f"--reference: expected a checkout of fra31/auto-attack, received {checkout!r}.")
        self._threat, self._batch_size = threat, batch_size
        normalize = network.get_layer("normalize")
        self._network = torch_preact_resnet.load(
            awp_tf.networks.dump_torch_weights(network), normalize.mean, normalize.std
        )
        import torch  # noqa: PLC0415 (an extra)

        sys.path.insert(0, checkout)
        import autoattack  # noqa: PLC0415 (from the checkout)

        self._torch, self._class = torch, autoattack.AutoAttack
        pixels = split.images / np.float32(255) if split.images.dtype == np.uint8 else split.images
        # The official code reshapes gradients by view, which only the plain memory layout allows.
        self._x = torch.tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32))
        self._y = torch.tensor(split.labels, dtype=torch.long)
        with torch.no_grad():
            apart = np.abs(self._network(self._x[:50]).numpy() - network(pixels[:50], training=False).numpy()).max()
        if apart > 1e-3:
            raise UserError(f"expected the same logits from both networks, received some that differ by {apart:.2g}.")

    def run(self, name: str) -> Stages:
        """(Robust accuracy, seconds) of an attack with the standard settings, or after each of "standard"."""
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            adversary = self._class(
                self._network,
                norm=type(self._threat).__name__,
                eps=self._threat.epsilon,
                version="standard",
                device="cpu",
                seed=0,
                log_path=str(log),
            )
            if name != "standard":
                adversary.attacks_to_run = [name]
            start = time.perf_counter()
            adversary.run_standard_evaluation(self._x, self._y, bs=self._batch_size)
            total = time.perf_counter() - start
            stages = _stages(log.read_text(encoding="utf-8"))
        if name != "standard":
            return {name: (stages[name.upper()][0], total)}
        return {
            **{f"standard/{key.lower()}": value for key, value in stages.items()},
            name: (min(s[0] for s in stages.values()), total),
        }


def _stages(log: str) -> Stages:
    """(Robust accuracy, own seconds) by attack, from "robust accuracy after FAB-T: 30.0% (total time 5.0 s)"."""
    found: Stages = {}
    before = 0.0
    for name, accuracy, total in re.findall(
        r"robust accuracy after ([\w-]+): ([\d.]+)% \(total time ([\d.]+) s\)", log
    ):
        found[name] = (float(accuracy) / 100, float(total) - before)
        before = float(total)
    return found
