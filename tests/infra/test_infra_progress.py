import time

from awp_tf.infra.progress import Clock, Console, duration, epoch_line, table


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


def test_clock_counts_training_and_not_what_lies_between():
    clock = Clock()
    time.sleep(0.02)
    clock.lap(100)
    clock.pause()
    time.sleep(0.2)
    clock.resume()
    assert clock.training() > 100 / 0.15
    assert clock.remaining(100) > 0.2
