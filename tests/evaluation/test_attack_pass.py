"""Progress of an attack, and that it is carried out on all devices."""

import numpy as np
import pytest
from helpers import tiny_network, tiny_split

from awp_tf.attacks import APGD
from awp_tf.attacks.autoattack import Cascade
from awp_tf.data import Split
from awp_tf.evaluation import runner
from awp_tf.evaluation.assessment import Assessment
from awp_tf.evaluation.attack_pass import AttackProgress
from awp_tf.evaluation.protocol import Protocol
from awp_tf.infra import progress
from awp_tf.infra.devices import Devices
from awp_tf.networks import classifier
from awp_tf.threats import Linf

TWO = Devices(("CPU:0", "CPU:1"))


def test_an_attack_has_a_last_line_and_now_and_then_one_before(capsys, monkeypatch):
    now = {"time": 0.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now["time"])
    shown = AttackProgress("apgd-t", images=80, total=100, runs=4)
    shown.report(0, 0.5, 70)
    assert capsys.readouterr().out == ""
    now["time"] = 30.0
    shown.report(1, 0.5, 60)
    line = capsys.readouterr().out
    for part in ("apgd-t", " 38 %", "60 of 100 still robust (60.00 %)", "1 images/s", "at most 0m50s left"):
        assert part in line
    shown.report(1, 0.6, 60)
    assert capsys.readouterr().out == ""
    later = AttackProgress("apgd-t", images=80, total=100, runs=4, done=0.5)
    now["time"] = 60.0
    later.report(3, 0.0, 55)
    assert "at most 0m30s left" in capsys.readouterr().out  # of its own pace, not of what an earlier process did
    now["time"] = 80.0
    shown.end(50)
    assert "100 %  50 of 100 still robust (50.00 %)  1 images/s  1m20s" in capsys.readouterr().out


def assessment(folder, devices=Devices(), on_progress=lambda: None):
    protocol = Protocol(Linf(0.02), batch_size=8)
    cascades = {"a": Cascade({"a": APGD(protocol.threat, iterations=10, restarts=2)})}
    network, split = classifier.of_keras(tiny_network()), tiny_split(40)
    right = Split(split.images, np.argmax(network.predict(split.images), 1).astype(np.int32))
    return Assessment(network, right, cascades, protocol, folder, on_progress, devices)


@pytest.mark.parametrize("constants", [True, False])
def test_every_device_takes_batches_and_nothing_changes(constants, tmp_path, monkeypatch):
    if not constants:  # as on GPUs: each has weights of its own
        monkeypatch.setattr(classifier, "_MOST_CONSTANTS", 0)
    whole = assessment(tmp_path / "whole")
    expected = whole.run()
    used, init = set(), runner.Runner.__init__

    def spying(self, *given):
        init(self, *given)
        advance = self._advance

        def spy(weights, *rest):
            state = advance(weights, *rest)
            used.add((state.fooled.device, *{w.device for w in weights}))
            return state

        self._advance = spy

    monkeypatch.setattr(runner.Runner, "__init__", spying)
    done = assessment(tmp_path / "two", TWO)
    state = done.run()
    assert len(used) == 2
    assert all(len(set(places)) == 1 for places in used)
    assert {len(places) for places in used} == {1 if constants else 2}
    np.testing.assert_array_equal(state.fooled_by, expected.fooled_by)
    found = np.flatnonzero(state.fooled_by[0] >= 0)
    assert 0 < len(found) < 40
    np.testing.assert_array_equal(done.adversarial("a")[found], whole.adversarial("a")[found])


def test_what_was_begun_on_one_device_may_end_on_two(tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    looks = iter(range(7))

    def stop():
        if next(looks, None) is None:
            raise Stop

    with pytest.raises(Stop):
        assessment(tmp_path / "out", on_progress=stop).run()
    found = assessment(tmp_path / "out", TWO).run().fooled_by
    np.testing.assert_array_equal(found, assessment(tmp_path / "whole").run().fooled_by)
