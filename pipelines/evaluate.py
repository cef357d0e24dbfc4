"""Measures how robust a network is: AutoAttack and others, with checks and a robustness card.

    python -m pipelines.evaluate --workdir=runs/trades_awp
    python -m pipelines.evaluate --workdir=runs/trades_awp --network=last
    python -m pipelines.evaluate --network=model.keras --data=cifar10 --threat=linf:8/255 --output=out

The first evaluates best.keras of a run (last.keras where it keeps no best) on the run's data, with the run's protocol
(--gin_file changes it); the second another of its networks. The third evaluates any network from [0, 1] images to
logits. Results go to <workdir>/evaluation, or evaluations/<network>; --output says otherwise. The same command goes
on with an unfinished evaluation. All GPUs of the machine work side by side.

Several machines that share a disk can share an evaluation, too, for instance as an array of jobs:

    sbatch --array=1-8 --wrap='python -m pipelines.evaluate --workdir=runs/trades_awp --shard=$SLURM_ARRAY_TASK_ID/8'

Each attacks every eighth image and may be stopped and started again on its own; the last one to finish writes the
results. They are those of one machine but for times, and for rounding in batches of other images.
"""

import pathlib
import sys
from collections.abc import Sequence

import absl.flags

from awp_tf import threats
from awp_tf.attacks.autoattack import ATTACKS
from awp_tf.data.by_name import data_set
from awp_tf.evaluation.audit import audit
from awp_tf.evaluation.card import UPPER_BOUND, Card, results, worst_class
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.shard import Shard
from awp_tf.evaluation.shards import audit_shard
from awp_tf.infra.files import local
from awp_tf.networks.classifier import Classifier, load

from . import _cli, _devices, _flags, _main

absl.flags.adopt_module_key_flags(_flags)  # so that --help shows them
absl.flags.adopt_module_key_flags(_cli)
absl.flags.adopt_module_key_flags(_devices)
_ATTACKS = absl.flags.DEFINE_string(
    "attacks",
    None,
    "Joined by commas; several of AutoAttack's as a cascade: apgd-ce+square. "
    + "; ".join(f"{name}: {what}" for name, what in ATTACKS.items()),
)
_SPLITS = absl.flags.DEFINE_enum("splits", None, ["test", "train", "both"], "both also gives the robust gap.")
_CHECKED = absl.flags.DEFINE_integer("check_examples", None, "How many images are checked for masked gradients.")
_TRANSFER = absl.flags.DEFINE_string(
    "transfer_from", None, "The network on which the attack 'transfer' crafts its images."
)
_SAVE = absl.flags.DEFINE_bool("save_adversarial", False, "Keep the adversarial images as .npy files.")
_SHARD = absl.flags.DEFINE_string(
    "shard",
    None,
    "3/8: the third of eight machines, which share a disk and the same command but for this flag; each attacks every "
    "eighth image, and the last one to finish writes the results. SLURM: --array=1-8, --shard=$SLURM_ARRAY_TASK_ID/8.",
)
_STRICT = absl.flags.DEFINE_bool("strict", False, "Exit with code 1 where a check fails.")


def run(argv: Sequence[str]) -> None:
    """Reads the network and the data, evaluates, prints the table."""
    shard = Shard.parse(_SHARD.value or "1/1")
    devices = _devices.prepare()
    subject, protocol, output = _of_run(_flags.WORKDIR.value) if _flags.WORKDIR.value else _of_network()
    print(subject.summary, flush=True)
    settings = {"save_adversarial": _SAVE.value, "devices": devices}
    if shard == Shard():
        _report(audit(subject, protocol, output, **settings), output)
    else:
        card = audit_shard(subject, protocol, output, shard, **settings)
        if card is not None:
            _report(card, output)


def _report(card: Card, output: str) -> None:
    """Prints the table, and what is not to be believed."""
    failed = [check for check in card["checks"] if not check["passed"]]
    print(f"\n{results(card)}\n\n{worst_class(card)}")
    for name, attack in card["attacks"].items():
        for remark in attack["remarks"]:
            print(f"{name}: {remark}")
    if card.get("upper_bound"):
        print(UPPER_BOUND)
    for check in failed:
        print(f"NOT TO BE TRUSTED: {check['name']}: {check['detail']}")
    print(f"written to {output}: evaluation.md (the robustness card), .json, .npz, pictures, tensorboard/")
    if failed and _STRICT.value:
        sys.exit(1)


def _of_run(folder: str) -> tuple[Subject, Protocol, str]:
    """A network of a run, on the run's data and by its protocol."""
    run = _flags.run(folder)
    name, file = _flags.one_network(run.path, "evaluate")
    protocol = _with_flags(_cli.call(Protocol))
    subject = Subject(
        load(str(file)),
        {"test": run.source.test, "train": run.train},
        name=run.path.resolve().name if name == "best" else f"{run.path.resolve().name}, {name}",
        data=run.source.name,
        class_names=run.source.class_names,
        transfer=_transfer(),
        config=run.config,
    )
    return subject, protocol, _flags.output(_flags.evaluation_folder(run.path, name))


def _of_network() -> tuple[Subject, Protocol, str]:
    """Any network on any data."""
    _flags.require_alone()
    protocol = _with_flags(Protocol(threats.parse(_flags.THREAT.value or "linf:8/255")))
    classifier = load(str(local(_flags.NETWORK.value)))
    found = data_set(_flags.DATA.value, protocol.parts, classifier.shape)
    name = pathlib.Path(_flags.NETWORK.value).stem
    subject = Subject(
        classifier, found.splits, name=name, data=_flags.DATA.value, class_names=found.class_names, transfer=_transfer()
    )
    return subject, protocol, _flags.output(f"evaluations/{name}")


def _with_flags(protocol: Protocol) -> Protocol:
    """The protocol with what the flags say."""
    return _flags.changed(
        protocol,
        threat=threats.parse(_flags.THREAT.value) if _flags.THREAT.value else None,
        attacks=_ATTACKS.value,
        splits=_SPLITS.value,
        examples=_flags.EXAMPLES.value,
        batch_size=_flags.BATCH.value,
        check_examples=_CHECKED.value,
        seed=_flags.SEED.value,
    )


def _transfer() -> Classifier | None:
    return load(str(local(_TRANSFER.value))) if _TRANSFER.value else None


def main() -> None:
    """The command itself."""
    _main.main(run)


if __name__ == "__main__":
    main()
