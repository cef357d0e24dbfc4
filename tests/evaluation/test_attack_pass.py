from awp_tf.evaluation.attack_pass import AttackProgress
from awp_tf.infra import progress


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
