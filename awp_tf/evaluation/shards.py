"""An evaluation by several machines: each attacks its images, the last one to finish writes the card.

They share a disk, and one folder on it. What a shard finds is kept in state/shard-N there; when all have finished, it
is put together as the state of an evaluation that stopped just before its end, and gone on with from there. So the
card, the arrays and the pictures are those of one process, image by image, up to the rounding of batches in which
other images stand: noise depends on the places of images among all. Times are those of all shards together.

The folder is locked while the card is being written. On a disk that knows no locks, which is said, two shards that
finish at the same moment could both write it; each file would still be there whole, and the same.
"""

import pathlib
import shutil
from collections.abc import Callable

from awp_tf.evaluation.audit import CHECKS, Audit
from awp_tf.evaluation.card import Card
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.shard import Shard
from awp_tf.infra.devices import Devices
from awp_tf.infra.result_folder import ResultFolder
from awp_tf.infra.signals import Interrupt

_WAIT = 3600.0  # seconds at most for another shard, which looks into the folder or writes the card


def audit_shard(
    subject: Subject,
    protocol: Protocol,
    folder: str,
    shard: Shard,
    *,
    save_adversarial: bool = False,
    devices: Devices = Devices(),
) -> Card | None:
    """Carries out one shard of an evaluation, or goes on with it; where all are finished, writes the card.

    Args:
        subject: What is attacked, on the images of all shards.
        protocol: How.
        folder: The same for all shards; see audit.
        shard: Which one.
        save_adversarial: Keep the adversarial images; all shards should say the same, the last one decides.
        devices: Where attacks are carried out.

    Returns:
        The card; None while shards are missing.

    Raises:
        UserError: The folder is another's, or of another number of shards, or another process works at this shard.
        Interrupted: A signal came; the same call goes on from there.
    """
    work = Audit(subject, protocol, save_adversarial, devices)
    shard.require_fit(work.subject.splits)
    place = work.place(pathlib.Path(folder), machine=f"{shard.count} shards")
    with place.alone(_WAIT):
        card = work.finished(place)
        if card is not None:
            return card
        place.claim()
    _attack(work, place, shard)
    with place.alone(_WAIT), Interrupt() as interrupt:
        card = work.finished(place)
        if card is not None or not _all_there(work, place, shard):
            return card
        _put_together(work, place, shard.count, interrupt.check)
        return work.carry_out(place, interrupt.check)


def _own(work: Audit, place: ResultFolder, shard: Shard) -> ResultFolder:
    """Where a shard is kept, with a lock and a state of its own."""
    return ResultFolder(
        place.state / f"shard-{shard.number}",
        "shard.json",
        "a shard of an evaluation",
        {"shard": str(shard), **work.fingerprint},
        ("shard", "network", "data", "protocol", "software"),
    )


def _attack(work: Audit, place: ResultFolder, shard: Shard) -> None:
    """The shard's images; the checks are the business of the first."""
    own = _own(work, place, shard)
    if own.finished() is not None:
        print(f"shard {shard} is finished", flush=True)
        return
    with own.open(), Interrupt() as interrupt:
        if shard.number == 1:
            work.measure(own.path / CHECKS, interrupt.check)
        for part, assessment in work.assessments(own.path, interrupt.check, shard).items():
            total = len(assessment.split)
            print(f"{part}, shard {shard}: {len(shard.places(total)):,} of {total:,} images", flush=True)
            assessment.run()
        own.finish({"fingerprint": own.fingerprint})


def _all_there(work: Audit, place: ResultFolder, shard: Shard) -> bool:
    """Whether all shards are finished; says which are not. Those at work may be on machines of another kind."""
    places = {str(n): _own(work, place, Shard(n, shard.count)) for n in range(1, shard.count + 1)}
    missing = [n for n, own in places.items() if not (own.path / own.file).is_file() or own.finished() is None]
    if missing:
        print(f"shard {shard} is finished; not yet: {', '.join(missing)}. The last one writes the card.", flush=True)
    return not missing


def _put_together(work: Audit, place: ResultFolder, count: int, check: Callable[[], None]) -> None:
    """The shards' findings as one state; nothing of theirs is changed."""
    folders = [_own(work, place, Shard(number, count)).path for number in range(1, count + 1)]
    theirs = [work.assessments(path, check, Shard(number + 1, count)) for number, path in enumerate(folders)]
    for part, assessment in work.assessments(place.state, check).items():
        assessment.take_over([each[part] for each in theirs])
        check()
    shutil.copyfile(folders[0] / CHECKS, place.state / CHECKS)
