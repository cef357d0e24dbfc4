"""An evaluation by several machines, and on several devices, is that of one."""

import concurrent.futures
import dataclasses
import json
import threading

import numpy as np
import pytest
from golden import mlp

from awp_tf.attacks import Square
from awp_tf.data import Split
from awp_tf.evaluation import output, shards
from awp_tf.evaluation.audit import audit
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.shard import Shard
from awp_tf.evaluation.shards import audit_shard
from awp_tf.infra.devices import Devices
from awp_tf.infra.errors import UserError
from awp_tf.infra.result_folder import lock
from awp_tf.infra.signals import Interrupt
from awp_tf.networks.classifier import Classifier
from awp_tf.threats import Linf

THREAT = Linf(0.004)
PROTOCOL = Protocol(THREAT, ["pgd-5", Square(THREAT, queries=30)], splits="both", batch_size=8, check_examples=10)
FEW = Protocol(THREAT, "pgd-5", batch_size=8, check_examples=10)
FILES = ["evaluation.npz", "adversarial_pgd-5.npy", "adversarial_train_square.npy"]
FILES += [f"evaluation_{name}.png" for name in ("curve", "classes", "examples")]


@pytest.fixture(scope="module")
def subject():
    drawn = mlp(60, 8, 16, 10, 0, "float32")
    labels = drawn.y.astype(np.int32)
    labels[:3] = (labels[:3] + 1) % 10
    images = Split(drawn.x.numpy(), labels)
    splits = {"test": images.take(slice(40)), "train": images.take(slice(40, 60))}
    return Subject(Classifier("mlp", drawn, (8, 8, 3), 10, "d"), splits, "tiny", "noise")


@pytest.fixture(scope="module")
def whole(subject, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "out"
    return path, audit(subject, PROTOCOL, str(path), save_adversarial=True)


@pytest.fixture(scope="module")
def few(subject, tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "out"
    audit(subject, FEW, str(path))
    return (path / "evaluation.npz").read_bytes()


def assert_the_same(path, card, whole):
    for file in FILES:
        assert (path / file).read_bytes() == (whole[0] / file).read_bytes(), file
    assert {file.name for file in path.iterdir()} == {file.name for file in whole[0].iterdir()}
    assert {**json.loads((path / output.CARD).read_text()), "seconds": 0} == {
        **json.loads((whole[0] / output.CARD).read_text()),
        "seconds": 0,
    }
    assert card["seconds"]["test"].keys() == whole[1]["seconds"]["test"].keys()


def shard_of(subject, path, number, count=3, protocol=PROTOCOL, **settings):
    return audit_shard(subject, protocol, str(path), Shard(number, count), save_adversarial=True, **settings)


class Stop(Exception):  # noqa: N818
    """What a signal would raise."""


def test_the_last_shard_writes_what_one_process_would_have_written(subject, whole, tmp_path, monkeypatch, capsys):
    path, looks = tmp_path / "out", iter(range(12))

    def stop(self):
        if next(looks, None) is None:
            raise Stop

    assert shard_of(subject, path, 3) is None
    assert "shard 3/3 is finished; not yet: 1, 2." in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(Interrupt, "check", stop)
        with pytest.raises(Stop):
            shard_of(subject, path, 1)
    assert shard_of(subject, path, 2) is None
    assert shard_of(subject, path, 2) is None
    said = capsys.readouterr().out
    assert "shard 2/3 is finished; not yet: 1." in said
    assert said.count("checks: ") == 1  # by the first shard alone
    with monkeypatch.context() as patched:
        patched.setattr("awp_tf.infra.cpu.cores", lambda: [0])  # machines may be of several kinds
        assert shard_of(subject, path, 3) is None
    card = shard_of(subject, path, 1)
    assert_the_same(path, card, whole)
    capsys.readouterr()
    assert shard_of(subject, path, 2) == json.loads(json.dumps(card))
    assert "finished; nothing to do" in capsys.readouterr().out


def test_a_merger_that_was_stopped_is_made_up_for_by_any_shard(subject, few, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Stop

    for number in (1, 2):
        shard_of(subject, tmp_path / "out", number, protocol=FEW)
    with monkeypatch.context() as patched:
        patched.setattr(output, "write", stop)
        with pytest.raises(Stop):
            shard_of(subject, tmp_path / "out", 3, protocol=FEW)
    assert shard_of(subject, tmp_path / "out", 2, protocol=FEW)["images"] == {"test": 40}
    assert (tmp_path / "out" / "evaluation.npz").read_bytes() == few


def test_shards_that_finish_together_write_one_card(subject, few, tmp_path, monkeypatch):
    meet, written = threading.Barrier(3, timeout=60), []
    attack, write = shards._attack, output.write
    monkeypatch.setattr(shards, "_attack", lambda *given: (attack(*given), meet.wait()))
    monkeypatch.setattr(output, "write", lambda *given, **more: (written.append(1), write(*given, **more)))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        cards = list(pool.map(lambda number: shard_of(subject, tmp_path / "out", number, protocol=FEW), (1, 2, 3)))
    assert len(written) == 1
    assert all(json.loads(json.dumps(card)) == json.loads(json.dumps(cards[0])) for card in cards)
    assert (tmp_path / "out" / "evaluation.npz").read_bytes() == few
    assert not (tmp_path / "out" / "state").exists()


OTHERS = {
    "machine": {"count": 2},
    "protocol": {"protocol": dataclasses.replace(FEW, seed=1)},
    "network": {"digest": "e"},
    "data": {"labels": 1},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_shard_of_anything_else_is_refused(what, subject, tmp_path):
    shard_of(subject, tmp_path / "out", 2, protocol=FEW)
    other = dict(OTHERS[what])
    classifier = dataclasses.replace(subject.classifier, digest=other.pop("digest", "d"))
    test = subject.splits["test"]
    images = {"test": Split(test.images, (test.labels + other.pop("labels", 0)) % 10)}
    with pytest.raises(UserError, match=f"another {what}"):
        shard_of(
            dataclasses.replace(subject, classifier=classifier, splits=images),
            tmp_path / "out",
            1,
            **{"protocol": FEW, **other},
        )
    with pytest.raises(UserError, match=r"another machine \(there: 3 shards"):
        audit(subject, FEW, str(tmp_path / "out"))


def test_a_shard_at_which_another_process_works_is_refused_and_others_are_not(subject, tmp_path):
    shard_of(subject, tmp_path / "out", 1, protocol=FEW)
    with lock(tmp_path / "out" / "state" / "shard-2"):
        with pytest.raises(UserError, match="another process is working in it"):
            shard_of(subject, tmp_path / "out", 2, protocol=FEW)
        assert shard_of(subject, tmp_path / "out", 3, protocol=FEW) is None


def test_two_devices_give_the_files_of_one(subject, whole, tmp_path):
    card = audit(subject, PROTOCOL, str(tmp_path / "out"), save_adversarial=True, devices=Devices(("CPU:0", "CPU:1")))
    assert_the_same(tmp_path / "out", card, whole)
