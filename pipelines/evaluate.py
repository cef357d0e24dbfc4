"""Measures how robust a network is: AutoAttack and others, with checks and a robustness card.

    python -m pipelines.evaluate --gin_file=gin/trades_awp.gin --workdir=runs/trades_awp
    python -m pipelines.evaluate --workdir=runs/trades_awp
    python -m pipelines.evaluate --network=model.keras --data=cifar10 --threat=linf:8/255 --workdir=out

The first evaluates best.keras of a finished run on the recipe's data, with the recipe's protocol; the
second takes the recipe from the run. The third evaluates any network from [0, 1] images to logits. The
same command goes on with an unfinished evaluation.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import absl.flags

from awp_tf import robustness, threats
from awp_tf.checks import UserError
from awp_tf.data.named import named
from awp_tf.robustness import Classifier, Protocol, Subject
from pipelines import _cli

absl.flags.adopt_module_key_flags(_cli)  # so that --help shows them
_WORKDIR = absl.flags.DEFINE_string(
    "workdir", None, "A run's folder; or with --network, where the results go (by default evaluations/<network>)."
)
_OUTPUT = absl.flags.DEFINE_string(
    "output", None, "Where the results of a run's evaluation go; by default <workdir>/evaluation."
)
_NETWORK = absl.flags.DEFINE_string("network", None, "A .keras file or the folder of a SavedModel.")
_DATA = absl.flags.DEFINE_string(
    "data",
    None,
    "With --network: digits, an .npz file with x_test and y_test, a folder of class folders, or a TFDS name.",
)
_THREAT = absl.flags.DEFINE_string("threat", None, "linf:8/255 or l2:128/255, in units of [0, 1] pixels.")
_ATTACKS = absl.flags.DEFINE_string(
    "attacks",
    None,
    "Joined by commas: standard, quick, rand (versions of AutoAttack), apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square "
    "(or several as a cascade: apgd-ce+square), fgsm, pgd-20, pgd-20x5 (restarts), cw-100, spsa, transfer.",
)
_SPLITS = absl.flags.DEFINE_enum("splits", None, ["test", "train", "both"], "both also gives the robust gap.")
_EXAMPLES = absl.flags.DEFINE_integer("max_examples", None, "At most so many images of a split, spread evenly.")
_BATCH = absl.flags.DEFINE_integer("batch_size", None, "Images at a time.")
_CHECKED = absl.flags.DEFINE_integer("check_examples", None, "On how many images masked gradients are looked for.")
_SEED = absl.flags.DEFINE_integer("seed", None, "What all noise depends on.")
_TRANSFER = absl.flags.DEFINE_string("transfer_from", None, "The network on which the attack transfer crafts.")
_SAVE = absl.flags.DEFINE_bool("save_adversarial", False, "Keep the adversarial images as .npy files.")
_STRICT = absl.flags.DEFINE_bool("strict", False, "Exit with code 1 where a check fails.")


def run(argv: Sequence[str]) -> None:
    """Reads the network and the data, evaluates, prints the table."""
    robustness.prepare_cpu()
    prepare = _given_network if _NETWORK.value and not absl.flags.FLAGS.gin_file else _finished_run
    subject, protocol, output = prepare()
    card = robustness.evaluate(subject, protocol, output, save_adversarial=_SAVE.value)
    failed = [check for check in card["checks"] if not check["passed"]]
    print(f"\n{robustness.results(card)}\n")
    for name, attack in card["attacks"].items():
        for remark in attack["remarks"]:
            print(f"{name}: {remark}")
    for check in failed:
        print(f"NOT TO BE TRUSTED: {check['name']}: {check['detail']}")
    print(f"written to {output}: evaluation.md (the robustness card), .json, .npz, pictures, tensorboard/")
    if failed and _STRICT.value:
        sys.exit(1)


def _finished_run() -> tuple[Subject, Protocol, str]:
    """The best network of a run (or another, for its data and protocol)."""
    flags = absl.flags.FLAGS
    if not _WORKDIR.value:
        raise UserError(
            "--workdir: expected the folder of a finished run, received none; or give --network and --data."
        )
    path = pathlib.Path(_WORKDIR.value)
    if not (path / "result.json").is_file():
        raise UserError(f"--workdir: expected the folder of a finished run (with result.json), received {str(path)!r}.")
    if _DATA.value:
        raise UserError("--data: expected it with --network only; a run's data is that of its recipe.")
    config = _cli.parse(flags.gin_file or [str(path / "config.gin")], flags.gin_bindings)
    protocol = _changed(_cli.call(Protocol))
    data = _cli.call(_cli.experiment.Data)
    classifier = robustness.load(_NETWORK.value or str(path / "best.keras"))
    source, train, _ = data.load()
    subject = Subject(
        classifier,
        {"test": source.test, "train": train},
        name=path.name,
        data=source.name,
        class_names=source.class_names,
        transfer=_transfer(),
        config=config,
    )
    return subject, protocol, _OUTPUT.value or str(path / "evaluation")


def _given_network() -> tuple[Subject, Protocol, str]:
    """Any network on any data."""
    if not _DATA.value:
        raise UserError("--data: expected what to evaluate on, for instance cifar10, digits or mine.npz.")
    if absl.flags.FLAGS.gin_bindings:
        raise UserError("--gin_bindings: expected them with a --gin_file only.")
    protocol = _changed(Protocol())
    classifier = robustness.load(_NETWORK.value)
    found = named(_DATA.value, protocol.parts, classifier.shape)
    name = pathlib.Path(_NETWORK.value).stem
    subject = Subject(
        classifier, found.splits, name=name, data=_DATA.value, class_names=found.class_names, transfer=_transfer()
    )
    return subject, protocol, _OUTPUT.value or _WORKDIR.value or f"evaluations/{name}"


def _changed(protocol: Protocol) -> Protocol:
    """The protocol with what the flags say."""
    given = {
        "threat": threats.parse(_THREAT.value) if _THREAT.value else None,
        "attacks": _ATTACKS.value,
        "splits": _SPLITS.value,
        "examples": _EXAMPLES.value,
        "batch_size": _BATCH.value,
        "check_examples": _CHECKED.value,
        "seed": _SEED.value,
    }
    return dataclasses.replace(protocol, **{name: value for name, value in given.items() if value is not None})


def _transfer() -> Classifier | None:
    return robustness.load(_TRANSFER.value) if _TRANSFER.value else None


if __name__ == "__main__":
    _cli.main(run)
