from awp_tf.infra import progress
from awp_tf.infra.progress import Console, Heartbeat, Pace, duration, table
from awp_tf.training.state import epoch_line


def test_epoch_line_reads_as_a_sentence():
    values = {f"{part}/{name}": v for part in ("train", "validation") for name, v in (("clean", 0.9), ("robust", 0.5))}
    line = epoch_line(
        3, 30, {**values, "train/loss": 1.25, "speed/images_per_second": 812.4}, remaining=3700, best=True
    )
    expected = "epoch  3/30  loss 1.2500  train 90.0/50.0 %  validation 90.0/50.0 %  812 images/s  1h01m left  best"
    assert line == expected
    assert duration(59.6) == "1m00s"


def test_table_is_aligned_markdown():
    assert table(["a", "bb"], [["ccc", "d"]]) == "| a   | bb |\n| --- | -- |\n| ccc | d  |"


def test_console_is_quiet_without_a_terminal(capfd):
    console = Console("training", 100)
    console.advance(50)
    console.note(loss="1.0")
    console.line("hello")
    console.close()
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert not err.strip()


def test_pace_counts_work_and_not_what_lies_between(monkeypatch):
    now = {"time": 0.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now["time"])
    pace = Pace(400, done=100)
    assert (pace.part, pace.left) == (0.25, 0.0)
    now["time"] = 2.0
    assert pace.advance(100) == 50
    pace.pause()
    now["time"] = 10.0
    assert pace.speed == 50  # as an epoch's line says it, while its validation is not to count
    pace.resume()
    now["time"] = 11.0
    assert pace.advance(50) == 50
    assert pace.speed == 50  # 150 in 3 seconds; what an earlier process did is no work of this one
    assert pace.left == 3
    pace.skip(50)
    assert pace.left == 2


def test_a_heartbeat_is_now_and_then(monkeypatch, capsys):
    now = {"time": 0.0}
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now["time"])
    heartbeat = Heartbeat()
    for moment in (5.0, 19.0, 20.0, 39.0, 41.0):
        now["time"] = moment
        heartbeat.beat(lambda: f"at {moment}")  # noqa: B023
    assert capsys.readouterr().out == "at 20.0\nat 41.0\n"
