"""Our AutoAttack and the official one (fra31/auto-attack) on the same weights and images."""

import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

import awp_tf.networks
from awp_tf.data.splits import Split
from awp_tf.evaluation.assessment import Assessment
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.state import result_of
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import duration
from awp_tf.networks.classifier import of_keras
from awp_tf.threats import Threat

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
        self._network = torch_network(awp_tf.networks.dump_torch_weights(network), normalize.mean, normalize.std)
        import torch  # noqa: PLC0415 (an extra)

        sys.path.insert(0, checkout)
        import autoattack  # noqa: PLC0415 (from the checkout)

        self._torch, self._class = torch, autoattack.AutoAttack
        images = np.asarray(split.images)
        pixels = images / np.float32(255) if images.dtype == np.uint8 else images
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


def torch_network(state: Mapping[str, np.ndarray], mean: Any, std: Any) -> Callable[[Any], Any]:
    """A function from torch images [B, C, H, W] in [0, 1] to logits, in evaluation mode.

    Args:
        state: PyTorch names to arrays.
        mean: Per channel, or None.
        std: Per channel, or None.

    Raises:
        UserError: torch is missing, or these are another network's weights.
    """
    try:
        import torch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UserError("expected PyTorch; install it with: pip install -e '.[torch]'.") from None
    if "layer4.1.conv2.weight" not in state:
        raise UserError(f"expected the weights of a preact_resnet18, received {sorted(state)[:3]}, ...")
    weights = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    shift, scale = (
        torch.tensor(np.reshape(np.float32(default if given is None else given), [1, -1, 1, 1]))
        for given, default in ((mean, 0.0), (std, 1.0))
    )
    conv2d, batch_norm = torch.nn.functional.conv2d, torch.nn.functional.batch_norm

    def activate(x: Any, name: str) -> Any:
        statistics = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return torch.relu(batch_norm(x, *statistics))

    def block(x: Any, name: str, stride: int) -> Any:
        h = activate(x, f"{name}.bn1")
        shortcut = weights.get(f"{name}.shortcut.0.weight")
        kept = x if shortcut is None else conv2d(h, shortcut, stride=stride)
        h = conv2d(h, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        return conv2d(activate(h, f"{name}.bn2"), weights[f"{name}.conv2.weight"], padding=1) + kept

    def network(x: Any) -> Any:
        x = conv2d((x - shift) / scale, weights["conv1.weight"], padding=1)
        for stage in range(1, 5):
            x = block(x, f"layer{stage}.0", 1 if stage == 1 else 2)
            x = block(x, f"layer{stage}.1", 1)
        return activate(x, "bn").mean((2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]

    return network
