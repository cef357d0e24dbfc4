"""Evaluates a classifier from end to end: checks, attacks, verification, card, pictures."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from awp_tf.attacks.autoattack import Cascade
from awp_tf.checkpoints import write_text
from awp_tf.checks import UserError
from awp_tf.data.sources import evenly, spread
from awp_tf.interrupt import Interrupt
from awp_tf.robustness import card as card_lib
from awp_tf.robustness import output, provenance
from awp_tf.robustness.assessment import Assessment
from awp_tf.robustness.protocol import Protocol
from awp_tf.robustness.result import of_ledger
from awp_tf.robustness.sanity import Check, Sanity, black_box, verified
from awp_tf.robustness.subject import Subject
from awp_tf.run_folder import locked


def evaluate(subject: Subject, protocol: Protocol, folder: str, *, save_adversarial: bool = False) -> card_lib.Card:
    """Measures robust accuracy, or goes on with an unfinished evaluation, and writes the card.

    Args:
        subject: What is attacked, on which images.
        protocol: How.
        folder: Where evaluation.json, .md, .npz and pictures go; new, empty, or of this evaluation.
        save_adversarial: Keep the adversarial images: an .npy file for each attack.

    Returns:
        The card; see awp_tf.robustness.card.make.

    Raises:
        UserError: The folder is another's; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    splits = {part: spread(subject.splits[part], protocol.examples) for part in protocol.parts}
    subject = dataclasses.replace(subject, splits=splits)
    cascades = protocol.cascades(subject.classifier.classes, subject.transfer)
    fingerprint = _fingerprint(subject, protocol, cascades)
    path = pathlib.Path(folder)
    finished = _finished(path, fingerprint)
    if finished is not None:
        _require_kept(path, cascades, save_adversarial)
        print(f"{path} holds this evaluation, finished; nothing to do.")
        return finished
    with locked(path), Interrupt() as interrupt:
        state = path / "state"
        _begin(state, fingerprint)
        parts = {
            part: Assessment(subject.classifier, split, cascades, protocol, state / part, interrupt.check)
            for part, split in splits.items()
        }
        sanity = _sanity(subject, protocol)
        seen = _looked_at(state, sanity, interrupt.check)
        checks, curve = sanity.conclude(seen)
        _warn(checks)
        results = {}
        for part, assessment in parts.items():
            print(f"{part}: {len(splits[part]):,} images", flush=True)
            ledger = assessment.run()
            results[part] = of_ledger(ledger, splits[part], cascades)
            found = [black_box(cascades, ledger), verified(ledger, randomised=protocol.expects_randomised)]
            checks += [check._replace(name=f"{check.name}, {part}") for check in found]
        worst = results[protocol.parts[0]].worst
        checks.append(sanity.strength(seen, worst[evenly(len(worst), protocol.check_examples)]))
        card = card_lib.make(subject, protocol, cascades, results, checks, curve, fingerprint)
        output.write(path, card, subject, parts, results, save_adversarial=save_adversarial)
        shutil.rmtree(state)
    return card


def _fingerprint(subject: Subject, protocol: Protocol, cascades: Mapping[str, Cascade]) -> dict[str, str]:
    """What an unfinished evaluation must agree in to be gone on with."""
    data = hashlib.sha256()
    for part, split in subject.splits.items():
        data.update(f"{part} {split.images.dtype} {split.images.shape}".encode())
        data.update(np.ascontiguousarray(split.images).data)
        data.update(np.ascontiguousarray(split.labels).data)
    searches = "; ".join(f"{name}: {dict(cascade.searches)!r}" for name, cascade in cascades.items())
    return {
        "network": subject.classifier.digest,
        "data": data.hexdigest(),
        "protocol": f"{protocol.threat!r}; seed {protocol.seed}; batches of {protocol.batch_size}; "
        f"{protocol.check_examples} images checked; {protocol.shares} shares; {searches}",
        "software": f"{provenance.versions()}, commit {provenance.commit()}",
    }


def _finished(path: pathlib.Path, fingerprint: Mapping[str, str]) -> card_lib.Card | None:
    """The card of a finished evaluation; None where there is none yet.

    Raises:
        UserError: The folder is another's.
    """
    file = path / output.CARD
    if file.is_file():
        card = _read(file)
        asked = {name: value for name, value in fingerprint.items() if name != "software"}
        _require_same(path, card.get("fingerprint", {}), asked)
        return card
    begun = path / "state" / "fingerprint.json"
    if begun.is_file():
        _require_same(path, _read(begun), fingerprint)
    elif path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - {".lock", "state"}):
        raise UserError(f"{path}: expected a new or empty folder, or an evaluation to go on with; choose another.")
    return None


def _read(file: pathlib.Path) -> card_lib.Card:
    try:
        content: card_lib.Card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: expected an evaluation, which this is not ({error}); choose another folder."
        ) from error
    return content


def _require_same(path: pathlib.Path, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    for name, value in here.items():
        if there.get(name) != value:
            raise UserError(
                f"{path}: holds an evaluation of another {name} (there: {there.get(name)}; here: {value}); "
                "choose another folder, or delete that one."
            )


def _begin(state: pathlib.Path, fingerprint: Mapping[str, str]) -> None:
    state.mkdir(exist_ok=True)
    write_text(state / "fingerprint.json", json.dumps(dict(fingerprint)))


def _sanity(subject: Subject, protocol: Protocol) -> Sanity:
    few = spread(subject.splits[protocol.parts[0]], protocol.check_examples)
    return Sanity(
        subject.classifier, few, protocol.threat, protocol.seed, protocol.batch_size, protocol.expects_randomised
    )


def _looked_at(state: pathlib.Path, sanity: Sanity, on_look: Callable[[], None]) -> dict[str, Any]:
    """What is seen on a few images; each look is kept, so that an interruption costs one."""
    file = state / "checks.json"
    seen = _read(file) if file.exists() else {}
    print(f"checks: {len(sanity.split):,} images, {len(sanity.looks()) - len(seen)} looks", flush=True)
    for name, look in sanity.looks().items():
        if name not in seen:
            seen[name] = look()
            write_text(file, json.dumps(seen))
            on_look()
    return seen


def _warn(checks: Sequence[Check]) -> None:
    for check in checks:
        if not check.passed:
            print(f"warning: {check.name}: {check.detail}", flush=True)


def _require_kept(path: pathlib.Path, cascades: Mapping[str, Cascade], wanted: bool) -> None:
    shutil.rmtree(path / "state", ignore_errors=True)  # left over where only the removal was interrupted
    if wanted and not all((path / output.adversarial_file(name)).is_file() for name in cascades):
        raise UserError(
            f"{path}: holds this evaluation, finished without --save_adversarial; choose another folder to repeat it."
        )
