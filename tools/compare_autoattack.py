"""Runs our attacks and the official AutoAttack on the same weights and images, and prints both.

    python -m tools.compare_autoattack --reference=PATH --network=runs/x/best.keras --data=cifar10

PATH is a checkout of fra31/auto-attack. Needs the extra "torch"; the network has to be a preact_resnet18.
Every attack alone on all images that are classified correctly, then the standard cascade; times are of
the same cores, one after the other.
"""

import json
import pathlib
from collections.abc import Sequence

import absl.flags
import keras

import awp_tf.networks  # noqa: F401  (makes its layers known to Keras)
from awp_tf import threats
from awp_tf.data.batches import spread
from awp_tf.data.by_name import data_set
from awp_tf.infra import cpu
from awp_tf.infra.progress import table
from pipelines import _main
from tools.official_autoattack import Official, ours, row

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
    cpu.prepare()
    network = keras.models.load_model(_NETWORK.value, compile=False)
    split = spread(data_set(_DATA.value, ["test"], network.input_shape[1:]).splits["test"], _EXAMPLES.value)
    threat, batch_size = threats.parse(_THREAT.value), _BATCH.value
    official = Official(_REFERENCE.value, network, split, threat, batch_size)
    rows = []
    for name in [*_ATTACKS.value, *(["standard"] if _CASCADE.value else [])]:
        mine, theirs = ours(network, split, name, threat, batch_size), official.run(name)
        last = min(accuracy for accuracy, _ in theirs.values())  # no stage is logged once no image is left
        rows += [row(key, *value, *theirs.get(key, (last, 0.0))) for key, value in mine.items()]
        print(" | ".join(rows[-1]), flush=True)
        if _OUTPUT.value:
            pathlib.Path(_OUTPUT.value).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"\n{len(split)} images, {_THREAT.value}\n")
    print(table(["attack", "ours", "official", "difference", "ours, time", "official, time", "times faster"], rows))


if __name__ == "__main__":
    _main.main(run)
