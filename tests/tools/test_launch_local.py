"""The launcher starts what a scheduler would start, and ends as its workers end."""

import json
import signal
import time

import pytest

from tools.launch_local import shares

PLACE = "import json, os; place = json.loads(os.environ['TF_CONFIG']); index = place['task']['index']; "


@pytest.fixture
def launch(commands):
    def launched(code, *flags, send=None):
        process = commands.start("tools.launch_local", *flags, "--", "-c", PLACE + code)
        if send:
            process.until(lambda: "ready" in process.printed())
            process.send_signal(send)
        done = process.end(60)
        return done.stdout + done.stderr, done.returncode

    return launched


def test_each_worker_knows_its_place_and_its_lines_are_told_apart(launch):
    said, code = launch("print(json.dumps(place))", "--workers=3")
    places = dict(line[1:].split("] ") for line in said.splitlines())
    found = [json.loads(places[str(i)]) for i in range(3)]
    assert [place["task"] for place in found] == [{"type": "worker", "index": i} for i in range(3)]
    assert len({str(place["cluster"]) for place in found}) == 1
    assert all(address.startswith("127.0.0.1:") for address in found[0]["cluster"]["worker"])
    assert code == 0


@pytest.mark.parametrize(("failure", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_the_first_failure_counts_and_the_others_are_ended(failure, code, launch):
    begin = time.monotonic()
    said, found = launch(f"import sys, time; {failure} if index else time.sleep(60)", "--grace=1")
    assert found == code, said
    assert time.monotonic() - begin < 40


def test_lost_workers_begin_again_as_often_as_allowed(launch, tmp_path):
    attempt = f"import sys; f = open({str(tmp_path / 'log')!r}, 'a'); f.write(str(index)); f.close(); sys.exit(75)"
    said, code = launch(attempt, "--restarts=2")
    assert code == 75
    assert said.count("all begin again") == 2
    assert sorted((tmp_path / "log").read_text()) == sorted("01" * 3)
    assert launch("import sys; sys.exit(2)", "--restarts=2")[0].count("begin again") == 0


def test_a_signal_reaches_all_and_none_begins_again(launch):
    wait = "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(143)); "
    code = wait + "print('ready', flush=True); time.sleep(60)"
    said, found = launch(code, "--restarts=3", send=signal.SIGTERM)
    assert (found, said.count("begin again")) == (143, 0)


def test_without_a_command_it_says_what_is_missing(commands):
    done = commands.run("tools.launch_local", "--workers=2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected a command behind --")


def test_no_two_workers_share_a_gpu_and_all_have_as_many(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = lambda workers, gpus: [share.get("CUDA_VISIBLE_DEVICES") for share in shares(workers, gpus)]  # noqa: E731
    assert seen(2, 4) == ["0,2", "1,3"]
    assert seen(2, 2) == seen(2, 3) == ["0", "1"]
    assert seen(2, 1) == ["-1", "-1"]
    assert seen(2, 0) == [None, None]
