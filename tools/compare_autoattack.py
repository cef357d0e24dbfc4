"""Runs our attacks and the official AutoAttack on the same weights and images, and prints both.

    python -m tools.compare_autoattack --reference=PATH --network=runs/x/best.keras --data=cifar10

PATH is a checkout of fra31/auto-attack. Needs the extra "torch"; the network has to be a preact_resnet18.
Every attack alone on all images that are classified correctly, then the standard cascade; times are of
the same cores, one after the other.
"""

import json
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence

import absl.flags
import keras
import numpy as np

import awp_tf.networks
from awp_tf import threats
from awp_tf.checks import UserError
from awp_tf.console import duration, table
from awp_tf.data.named import named
from awp_tf.data.sources import Split, spread
from awp_tf.robustness import Protocol, prepare_cpu
from awp_tf.robustness.assessment import Assessment
from awp_tf.robustness.classifier import of_keras
from awp_tf.robustness.result import of_ledger
from pipelines import _cli
from tools import torch_preact_resnet

_REFERENCE = absl.flags.DEFINE_string("reference", None, "A checkout of fra31/auto-attack.", required=True)
_NETWORK = absl.flags.DEFINE_string("network", None, "A preact_resnet18 as .keras.", required=True)
_DATA = absl.flags.DEFINE_string("data", "cifar10", "As in pipelines.evaluate.")
_THREAT = absl.flags.DEFINE_string("threat", "linf:8/255", "As in pipelines.evaluate.")
_EXAMPLES = absl.flags.DEFINE_integer("examples", 500, "Test images, spread evenly.")
_ATTACKS = absl.flags.DEFINE_list("attacks", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"], "Each alone.")
_CASCADE = absl.flags.DEFINE_bool("cascade", True, "Run the standard cascade too.")
_BATCH = absl.flags.DEFINE_integer("batch_size", 250, "Images at a time, for both.")
_OUTPUT = absl.flags.DEFINE_string("output", None, "A .json file that keeps the numbers, one attack after the other.")


def run(argv: Sequence[str]) -> None:
    """Both sides, attack by attack, in turns."""
    prepare_cpu()
    network = keras.models.load_model(_NETWORK.value, compile=False)
    split = spread(named(_DATA.value, ["test"], network.input_shape[1:]).splits["test"], _EXAMPLES.value)
    official = Official(_REFERENCE.value, network, split)
    rows = []
    for name in [*_ATTACKS.value, *(["standard"] if _CASCADE.value else [])]:
        mine, theirs = ours(network, split, name), official.run(name)
        last = min(accuracy for accuracy, _ in theirs.values())  # no stage is logged once no image is left
        rows += [row(key, *value, *theirs.get(key, (last, 0.0))) for key, value in mine.items()]
        print(" | ".join(rows[-1]), flush=True)
        if _OUTPUT.value:
            pathlib.Path(_OUTPUT.value).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"\n{len(split)} images, {_THREAT.value}\n")
    print(table(["attack", "ours", "official", "difference", "ours, time", "official, time", "times faster"], rows))


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


def ours(network: keras.Model, split: Split, name: str) -> dict[str, tuple[float, float]]:
    """(Robust accuracy, seconds), tracing included, of an attack, or after each attack of "standard"."""
    protocol = Protocol(threat=threats.parse(_THREAT.value), attacks=name, batch_size=_BATCH.value)
    classifier = of_keras(network)
    cascades = protocol.cascades(classifier.classes, None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ledger = Assessment(classifier, split, cascades, protocol, pathlib.Path(folder) / "state").run()
        total = time.perf_counter() - start
    result = of_ledger(ledger, split, cascades)
    stages = {key: (float(flags.mean()), result.seconds.get(key, 0.0)) for key, flags in result.after.items()}
    if len(stages) == 1:
        return {name: (float(result.robust[name].mean()), total)}
    return {**stages, name: (float(result.robust[name].mean()), total)}


class Official:
    """The official code on the same weights and images."""

    def __init__(self, checkout: str, network: keras.Model, split: Split) -> None:
        """Builds the network in PyTorch and checks that it agrees.

        Raises:
            UserError: The checkout is something else, or the networks disagree.
        """
        if not (pathlib.Path(checkout) / "autoattack" / "autopgd_base.py").is_file():
            raise UserError(f"--reference: expected a checkout of fra31/auto-attack, received {checkout!r}.")
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

    def run(self, name: str) -> dict[str, tuple[float, float]]:
        """(Robust accuracy, seconds) of an attack with the standard settings, or after each of "standard"."""
        threat = threats.parse(_THREAT.value)
        norm = type(threat).__name__
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log"
            adversary = self._class(
                self._network,
                norm=norm,
                eps=threat.epsilon,
                version="standard",
                device="cpu",
                seed=0,
                log_path=str(log),
            )
            if name != "standard":
                adversary.attacks_to_run = [name]
            start = time.perf_counter()
            adversary.run_standard_evaluation(self._x, self._y, bs=_BATCH.value)
            total = time.perf_counter() - start
            stages = _stages(log.read_text(encoding="utf-8"))
        if name != "standard":
            return {name: (stages[name.upper()][0], total)}
        return {
            **{f"standard/{key.lower()}": value for key, value in stages.items()},
            name: (min(s[0] for s in stages.values()), total),
        }


def _stages(log: str) -> dict[str, tuple[float, float]]:
    """(Robust accuracy, own seconds) by attack, from "robust accuracy after FAB-T: 30.0% (total time 5.0 s)"."""
    found: dict[str, tuple[float, float]] = {}
    before = 0.0
    for name, accuracy, total in re.findall(
        r"robust accuracy after ([\w-]+): ([\d.]+)% \(total time ([\d.]+) s\)", log
    ):
        found[name] = (float(accuracy) / 100, float(total) - before)
        before = float(total)
    return found


if __name__ == "__main__":
    _cli.main(run)
