"""Evaluates a classifier from end to end: checks, attacks, verification, card, pictures."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.batches import spread
from awp_tf.data.splits import evenly
from awp_tf.evaluation import card as card_lib
from awp_tf.evaluation import output
from awp_tf.evaluation.cascades import Assessment
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.sanity import Check, Sanity, black_box, verification
from awp_tf.evaluation.state import result_of
from awp_tf.infra import provenance
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.result_folder import ResultFolder
from awp_tf.infra.signals import Interrupt


def audit(subject: Subject, protocol: Protocol, folder: str, *, save_adversarial: bool = False) -> card_lib.Card:
    """Measures robust accuracy, or goes on with an unfinished evaluation, and writes the card.

    Args:
        subject: What is attacked, on which images.
        protocol: How.
        folder: Where evaluation.json, .md, .npz and pictures go; new, empty, or of this evaluation.
        save_adversarial: Keep the adversarial images: an .npy file for each attack.

    Returns:
        The card; see awp_tf.evaluation.card.make.

    Raises:
        UserError: The folder is another's; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    splits = {part: spread(subject.splits[part], protocol.examples) for part in protocol.parts}
    whole = len(splits[protocol.parts[0]]) == len(subject.splits[protocol.parts[0]])
    subject = dataclasses.replace(subject, splits=splits)
    cascades = protocol.cascades(subject.classifier.classes, subject.transfer)
    path = pathlib.Path(folder)
    place = ResultFolder(
        path, output.CARD, "an evaluation", _fingerprint(subject, protocol, cascades), ("network", "data", "protocol")
    )
    finished = place.finished()
    if finished is not None:
        place.clear()
        _require_kept(path, cascades, save_adversarial)
        print(f"{path} holds this evaluation, finished; nothing to do.")
        return finished
    with place.open(), Interrupt() as interrupt:
        parts = {
            part: Assessment(subject.classifier, split, cascades, protocol, place.state / part, interrupt.check)
            for part, split in splits.items()
        }
        sanity = _sanity(subject, protocol)
        measured = _measure_all(place.state / "checks.json", sanity, interrupt.check)
        checks, curve = sanity.conclude(measured)
        _warn(checks)
        results = {}
        for part, assessment in parts.items():
            print(f"{part}: {len(splits[part]):,} images", flush=True)
            state = assessment.run()
            results[part] = result_of(state, splits[part], cascades)
            found = [black_box(cascades, state), verification(state, randomised=protocol.expects_randomised)]
            checks += [check._replace(name=f"{check.name}, {part}") for check in found]
        worst = results[protocol.parts[0]].worst
        checks.append(sanity.strength(measured, worst[evenly(len(worst), protocol.check_examples)]))
        card = card_lib.make(subject, protocol, cascades, results, checks, curve, place.fingerprint, whole=whole)
        output.write(path, card, subject, parts, results, save_adversarial=save_adversarial)
        place.finish(card)
    return card


def _fingerprint(subject: Subject, protocol: Protocol, cascades: Mapping[str, Cascade]) -> dict[str, str]:
    """What an unfinished evaluation must agree in to be gone on with."""
    searches = "; ".join(f"{name}: {dict(cascade.searches)!r}" for name, cascade in cascades.items())
    searches = searches.replace("LastIterate(", "Once(")  # its name when the first evaluations were finished
    return {
        "network": subject.classifier.digest,
        "data": ", ".join(f"{part} {split.digest()}" for part, split in subject.splits.items()),
        "protocol": f"{protocol.threat!r}; seed {protocol.seed}; batches of {protocol.batch_size}; "
        f"{protocol.check_examples} images checked; {searches}",
        "machine": f"{protocol.shares(protocol.batch_size)} shares",
        "software": f"{provenance.versions()}, commit {provenance.commit()}",
    }


def _sanity(subject: Subject, protocol: Protocol) -> Sanity:
    few = spread(subject.splits[protocol.parts[0]], protocol.check_examples)
    return Sanity(
        subject.classifier, few, protocol.threat, protocol.seed, protocol.batch_size, protocol.expects_randomised
    )


def _measure_all(file: pathlib.Path, sanity: Sanity, on_progress: Callable[[], None]) -> dict[str, Any]:
    """What is measured on a few images; each measurement is kept, so that an interruption costs one."""
    measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    print(
        f"checks: {len(sanity.split):,} images, {len(sanity.measurements()) - len(measured)} measurements", flush=True
    )
    for name, measure in sanity.measurements().items():
        if name not in measured:
            measured[name] = measure()
            write_text(file, json.dumps(measured))
            on_progress()
    return measured


def _warn(checks: Sequence[Check]) -> None:
    for check in checks:
        if not check.passed:
            print(f"warning: {check.name}: {check.detail}", flush=True)


def _require_kept(path: pathlib.Path, cascades: Mapping[str, Cascade], wanted: bool) -> None:
    if wanted and not all((path / output.adversarial_file(name)).is_file() for name in cascades):
        raise UserError(f"{path}: holds this evaluation, finished without its adversarial images; choose another.")
