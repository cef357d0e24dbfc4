"""Evaluates a classifier from end to end: checks, attacks, verification, card, pictures."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from awp_tf.attacks.autoattack import Cascade
from awp_tf.data.batches import spread
from awp_tf.data.splits import evenly
from awp_tf.evaluation import card as card_lib
from awp_tf.evaluation import output
from awp_tf.evaluation.assessment import Assessment
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.sanity import Check, Sanity, black_box, verification
from awp_tf.evaluation.shard import Shard
from awp_tf.evaluation.state import result_of
from awp_tf.infra import provenance
from awp_tf.infra.devices import Devices
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import write_text
from awp_tf.infra.result_folder import ResultFolder
from awp_tf.infra.signals import Interrupt

CHECKS = "checks.json"


def audit(
    subject: Subject,
    protocol: Protocol,
    folder: str,
    *,
    save_adversarial: bool = False,
    devices: Devices = Devices(),
) -> card_lib.Card:
    """Measures robust accuracy, or goes on with an unfinished evaluation, and writes the card.

    Args:
        subject: What is attacked, on which images.
        protocol: How.
        folder: Where evaluation.json, .md, .npz and pictures go; new, empty, or of this evaluation.
        save_adversarial: Keep the adversarial images: an .npy file for each attack.
        devices: Where attacks are carried out; the result is the same on any number of them.

    Returns:
        The card; see awp_tf.evaluation.card.make.

    Raises:
        UserError: The folder is another's; nothing has been written.
        Interrupted: A signal came; the same call goes on from there.
    """
    work = Audit(subject, protocol, save_adversarial, devices)
    place = work.place(pathlib.Path(folder))
    finished = work.finished(place)
    if finished is not None:
        return finished
    with place.open(), Interrupt() as interrupt:
        return work.carry_out(place, interrupt.check)


@dataclasses.dataclass(frozen=True)
class Audit:
    """The parts of an evaluation, whether one process carries them out or several.

    Attributes:
        given: What is attacked, on all images.
        protocol: How.
        save_adversarial: Keep the adversarial images.
        devices: Where attacks are carried out.
    """

    given: Subject
    protocol: Protocol
    save_adversarial: bool = False
    devices: Devices = Devices()

    @functools.cached_property
    def subject(self) -> Subject:
        """What is attacked, on those images that the protocol takes."""
        splits = {part: spread(self.given.splits[part], self.protocol.examples) for part in self.protocol.parts}
        return dataclasses.replace(self.given, splits=splits)

    @functools.cached_property
    def cascades(self) -> Mapping[str, Cascade]:
        """By what."""
        return self.protocol.cascades(self.subject.classifier.classes, self.subject.transfer)

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """What an unfinished evaluation must agree in to be gone on with."""
        subject, protocol = self.subject, self.protocol
        searches = "; ".join(f"{name}: {dict(cascade.searches)!r}" for name, cascade in self.cascades.items())
        return {
            "network": subject.classifier.digest,
            "data": ", ".join(
                f"{len(split):,} {part} images, {split.digest()}" for part, split in subject.splits.items()
            ),
            "protocol": f"{protocol.threat!r}; seed {protocol.seed}; batches of {protocol.batch_size}; "
            f"{protocol.check_examples} images checked; {searches}",
            "machine": f"{protocol.shares(protocol.batch_size)} shares",
            "software": f"{provenance.versions()}, commit {provenance.commit()}",
        }

    @functools.cached_property
    def sanity(self) -> Sanity:
        """The checks, on a few images."""
        protocol = self.protocol
        few = spread(self.subject.splits[protocol.parts[0]], protocol.check_examples)
        return Sanity(
            self.subject.classifier,
            few,
            protocol.threat,
            protocol.seed,
            protocol.batch_size,
            protocol.expects_randomised,
        )

    def place(self, path: pathlib.Path, **fingerprint: str) -> ResultFolder:
        """Where it goes; the fingerprint of unfinished work may say something else than that of the result."""
        return ResultFolder(
            path, output.CARD, "an evaluation", {**self.fingerprint, **fingerprint}, ("network", "data", "protocol")
        )

    def finished(self, place: ResultFolder) -> card_lib.Card | None:
        """The card that is there already; None where there is none yet.

        Raises:
            UserError: The folder is another's, or holds no adversarial images where they are to be kept.
        """
        card = place.finished()
        if card is not None:
            place.clear()
            files = [place.path / output.adversarial_file(name) for name in self.cascades]
            if self.save_adversarial and not all(file.is_file() for file in files):
                raise UserError(
                    f"{place.path}: holds this evaluation, finished without its adversarial images; choose another."
                )
            print(f"{place.path} holds this evaluation, finished; nothing to do.")
        return card

    def carry_out(self, place: ResultFolder, on_progress: Callable[[], None]) -> card_lib.Card:
        """All of it from wherever the state in place stands, up to the card; the caller has opened place."""
        subject, protocol, cascades = self.subject, self.protocol, self.cascades
        parts = self.assessments(place.state, on_progress)
        measured = self.measure(place.state / CHECKS, on_progress)
        checks, curve = self.sanity.conclude(measured)
        results = {}
        for part, assessment in parts.items():
            print(f"{part}: {len(assessment.split):,} images", flush=True)
            state = assessment.run()
            results[part] = result_of(state, assessment.split, cascades)
            found = [black_box(cascades, state), verification(state, randomised=protocol.expects_randomised)]
            checks += [check._replace(name=f"{check.name}, {part}") for check in found]
        first = protocol.parts[0]
        worst = results[first].worst
        checks.append(self.sanity.strength(measured, worst[evenly(len(worst), protocol.check_examples)]))
        whole = len(subject.splits[first]) == len(self.given.splits[first])
        card = card_lib.make(subject, protocol, cascades, results, checks, curve, self.fingerprint, whole=whole)
        output.write(place.path, card, subject, parts, results, save_adversarial=self.save_adversarial)
        place.finish(card)
        return card

    def assessments(
        self, folder: pathlib.Path, on_progress: Callable[[], None], shard: Shard = Shard()
    ) -> dict[str, Assessment]:
        """One for each split, kept below folder; of a shard, its images only."""
        of = functools.partial(Assessment, self.subject.classifier)
        return {
            part: of(split, self.cascades, self.protocol, folder / part, on_progress, self.devices, shard)
            for part, split in self.subject.splits.items()
        }

    def measure(self, file: pathlib.Path, on_progress: Callable[[], None]) -> dict[str, Any]:
        """What is measured on a few images; each measurement is kept, so that an interruption costs one."""
        measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        left = {name: measure for name, measure in self.sanity.measurements().items() if name not in measured}
        print(f"checks: {len(self.sanity.split):,} images, {len(left)} measurements", flush=True)
        for name, measure in left.items():
            measured[name] = measure()
            write_text(file, json.dumps(measured))
            on_progress()
        _warn(self.sanity.conclude(measured)[0])
        return measured


def _warn(checks: Sequence[Check]) -> None:
    for check in checks:
        if not check.passed:
            print(f"warning: {check.name}: {check.detail}", flush=True)
