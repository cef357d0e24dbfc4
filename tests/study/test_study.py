"""Studies: the plan, the records, the tables, and the driver."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import gin
import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from awp_tf.infra.signals import Interrupt, Interrupted
from awp_tf.study.records import Record, Study, Trial, read_records, write_record
from awp_tf.study.summary import _against_minutes, mean_and_error, write_report
from awp_tf.study.worker import Worker, shares_of_cores
from pipelines import _cli

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


def record(label="AT", seed=0, last=0.3, sharp=1.0):
    robust = {"test_clean": 0.6, "test_robust": 0.4, "train_robust": 0.5, "robust_gap": 0.1}
    epochs = [{"epoch": n, "train/robust": 0.1 * n, "validation/robust": 0.1} for n in (1, 2)]
    epochs.append({"epoch": 3, "train/epoch_loss": 1.0})  # not measured
    networks = [
        {
            "name": name,
            "run": "x",
            "epoch": None,
            "robust_gap": part * sharp / 10,
            "sharpness": {f"{size:g}": [part * size * sharp, 0.1] for size in (0.25, 0.5, 1)},
        }
        for name, part in (("best", 0.5), ("last", 1.0))
    ]
    result = {"best": robust, "last": {**robust, "test_robust": last}}
    return Record(label, seed, "0", result, epochs, networks, {"train": 60.0, "landscape": 5.0}, "abc", {})


def test_trials_are_recipes_times_seeds_round_by_round():
    study = Study({"AT": ["gin/at.gin"], "AT + RWP": ["gin/at.gin", "A.b=1"]}, ["gin/c.gin", "C.d=2"], seeds=(0, 3))
    assert [trial.name for trial in study.trials] == ["at-seed0", "at_rwp-seed0", "at-seed3", "at_rwp-seed3"]
    assert study.trials[1].files == ["gin/at.gin", "gin/c.gin"]
    assert study.trials[1].bindings == ["A.b=1", "C.d=2", "SEED=0"]


@pytest.mark.slow  # in a process of its own: two commands define a flag of the same name
def test_a_run_is_trained_and_drawn_by_the_commands_themselves(tmp_path):
    code = (
        "import json, pathlib, absl.flags; from awp_tf.study.records import Study; from pipelines import study\n"
        "absl.flags.FLAGS(['study', '--import=mine', '--output=x'])\n"
        "planned = Study({'AT': ['gin/at.gin', 'A.b=1']}, checkpoints='last', evaluate='best')\n"
        "print(json.dumps(study.commands(planned.trials[0], pathlib.Path('at'), planned)))"
    )
    found = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    settings = ["--gin_file=gin/at.gin", "--gin_bindings=A.b=1", "--gin_bindings=SEED=0"]
    assert found["train"] == ["-m", "pipelines.train", *settings, "--import=mine", "--workdir=at"]
    drawn = ["--workdir=at", "--import=mine", "--network=last", "--output=at/landscape"]
    assert found["landscape"] == ["-m", "pipelines.landscape", *drawn]
    evaluated = ["--workdir=at", "--import=mine", "--network=best", "--output=at/evaluation_best"]
    assert found["evaluate best"] == ["-m", "pipelines.evaluate", *evaluated]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs": {}}, "expected runs with different names and seeds, received none"),
        ({"runs": {"AT": [], "at": []}}, "different names and seeds, received at-seed0, at-seed0"),
        ({"runs": {"AT": []}, "seeds": (0, 0)}, "different names and seeds, received at-seed0, at-seed0"),
        ({"runs": {"AT": []}, "seeds": (-1,)}, r"Study\.seeds: expected a whole number >= 0"),
        ({"runs": {"AT": []}, "seeds": 3}, r"Study\.seeds: expected several, for instance \(0, 1, 2\), received 3"),
        ({"runs": {"AT": []}, "checkpoints": "first"}, r"Study\.checkpoints: expected one of best, last, epochs"),
        ({"runs": {"AT": []}, "evaluate": "epochs"}, r"Study\.evaluate: expected one of best, last"),
        ({"runs": {"AT": []}, "checkpoints": "best"}, r"Study\.checkpoints: expected last among them"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Study(**settings)


@pytest.mark.parametrize("name", ["headline", "gamma", "precision", "laptop"])
def test_the_studies_that_come_with_the_project_are_made_of_recipes_that_exist(name):
    _cli.parse([f"gin/studies/{name}.gin"], [], root="Study.runs")
    study = _cli.call(Study)
    for trial in study.trials:
        files = [setting for setting in trial.settings if setting.endswith(".gin")]
        bindings = [setting for setting in trial.settings if not setting.endswith(".gin")]
        text = _cli.parse(files, [*bindings, f"SEED={trial.seed}"])
        assert "preact_resnet18.width = 16" in text


def test_records_come_back_as_they_were(tmp_path):
    study = Study({"AT": [], "AT-AWP": []})
    write_record(record(), tmp_path / "at-seed0.json")
    assert read_records(tmp_path, study) == {"at-seed0": record()}
    (tmp_path / "at_awp-seed0.json").write_text("{}")
    with pytest.raises(UserError, match="expected the record of a run"):
        read_records(tmp_path, study)


def test_a_network_under_two_names_counts_once():
    made = record()
    last = made.networks[-1]
    kept = [{**last, "name": "epoch 2", "epoch": 2}, {**last, "name": "epoch 1", "epoch": 1, "robust_gap": 0.5}]
    made = dataclasses.replace(made, networks=[last, *kept])
    assert [network["name"] for network in made.different_networks()] == ["last", "epoch 1"]


def test_means_and_standard_errors():
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / 3**0.5))
    assert np.isnan(mean_and_error([1.0])[1])


def test_the_report_holds_what_the_records_say(tmp_path):
    records = [record(last=0.3), record(seed=1, last=0.34), record("AT-AWP", last=0.4, sharp=0.5)]
    text = write_report(records, tmp_path, planned=6)
    assert "3 of 6 runs, 3m15s" in text
    first = {row[1].strip(): row for row in reversed([line.split("|") for line in text.splitlines() if "|" in line])}
    assert first["AT"][7].strip() == "8.00 ± 2.00"  # 10 and 6 points
    assert first["AT-AWP"][7].strip() == "0.00"
    assert "over 6 networks" in text
    assert "1.00 at 0.25, 1.00 at 0.5, 1.00 at 1" in text
    assert text in (tmp_path / "study.md").read_text()
    for name in ("curves", "minutes", "best_and_last", "sharpness_and_gap"):
        assert (tmp_path / f"study_{name}.png").stat().st_size > 5000
        assert (tmp_path / f"study_{name}.svg").exists()


def test_a_run_takes_as_many_minutes_in_the_figure_as_it_took():
    cheap, dear = record(), dataclasses.replace(record("AT-AWP"), seconds={"train": 90.0})
    panel = _against_minutes({"AT": [cheap], "AT-AWP": [dear]}).axes[0]
    np.testing.assert_allclose([line.get_xdata() for line in panel.lines], [[1 / 3, 2 / 3], [1 / 2, 1.0]])


def test_what_was_evaluated_and_how_long_training_took_is_a_table_where_all_runs_have_it(tmp_path):
    evaluated = [
        dataclasses.replace(
            record(seed=seed),
            evaluations={"best": {"clean": 0.5, "quick/apgd-ce": 0.4, "quick": robust, "worst case": robust}},
        )
        for seed, robust in ((0, 0.1), (1, 0.3))
    ]
    text = write_report(evaluated, tmp_path, planned=2)
    assert re.search(r"clean, best +\| quick, best +\| training, minutes", text)
    assert "20.00 ± 10.00" in text
    assert "apgd-ce" not in text
    assert "worst case" not in text
    assert "quick" not in write_report([evaluated[0], record(seed=1)], tmp_path, planned=2)


def test_a_command_that_fails_names_its_log(tmp_path):
    worker = Worker(tmp_path, Interrupt(), sorted(os.sched_getaffinity(0)))
    with pytest.raises(UserError, match=r"failed with exit code 2; see .*at-seed0.log"):
        worker.run("at-seed0", {"train": ["-m", "pipelines.train", "--gin_file=gin/nothing.gin"]})
    assert "expected an existing file" in (tmp_path / "at-seed0.log").read_text()


def test_seconds_of_failed_attempts_count_and_names_with_dots_keep_apart(tmp_path):
    worker = Worker(tmp_path, Interrupt(), sorted(os.sched_getaffinity(0)))
    seconds = []
    for _ in range(2):
        with pytest.raises(UserError, match=r"exit code 3; see .*gamma_0\.5-seed0\.log"):
            worker.run(Trial("gamma 0.5", 0, ()).name, {"train": ["-c", "exit(3)"]})
        seconds.append(json.loads((tmp_path / "gamma_0.5-seed0.seconds.json").read_text())["train"])
    assert seconds[1] > seconds[0] > 0


def test_cores_are_shared_out():
    cores = sorted(os.sched_getaffinity(0))
    assert shares_of_cores(1) == [cores]
    assert sorted(core for share in shares_of_cores(len(cores)) for core in share) == cores
    with pytest.raises(UserError, match="jobs: expected at most"):
        shares_of_cores(len(cores) + 1)


def test_a_signal_is_passed_on(tmp_path):
    class Stopped(Interrupt):
        def check(self):
            if (tmp_path / "ready").exists():
                raise Interrupted(signal.SIGTERM)

    child = (
        "import pathlib, signal, time\n"
        f"received, ready = pathlib.Path({str(tmp_path / 'received')!r}), pathlib.Path({str(tmp_path / 'ready')!r})\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: (received.touch(), exit(1)))\n"
        "ready.touch()\n"
        "time.sleep(60)\n"
    )
    worker = Worker(tmp_path, Stopped(), sorted(os.sched_getaffinity(0)))
    with pytest.raises(Interrupted):
        worker.run("at-seed0", {"train": ["-c", child]})
    assert (tmp_path / "received").exists()


STUDY = """
Study.runs = {'AT': ['gin/at.gin'], 'AT-AWP': ['gin/at_awp.gin']}
Study.common = [
    'gin/digits.gin', 'EPOCHS=2', 'train.keep_every=1', 'Data.limit=200', 'small_cnn.width=4',
    'Landscape.alphas=(-0.5,0,0.5)', 'Landscape.directions=1', 'Landscape.awp_length=0', 'Landscape.examples=50',
    'gin/protocols/quick.gin', 'Protocol.examples=50', 'Protocol.check_examples=20']
Study.checkpoints = 'best,last,epochs'
Study.evaluate = 'best'
"""


@pytest.mark.slow
def test_a_study_from_end_to_end_goes_on_where_it_was_stopped(tmp_path):
    (tmp_path / "tiny.gin").write_text(STUDY)
    command = [sys.executable, "-m", "pipelines.study", f"--gin_file={tmp_path}/tiny.gin", f"--output={tmp_path}/out"]
    command += [f"--runs={tmp_path}/runs", "--jobs=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while not list((tmp_path / "runs").glob("*/checkpoints/*.index")):
            assert first.poll() is None, first.communicate()
            time.sleep(0.2)
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    records = {file.stem for file in (tmp_path / "out" / "records").glob("*.json")}
    assert records == {"at-seed0", "at_awp-seed0"}
    assert "2 of 2 runs" in done.stdout
    assert "quick, best" in done.stdout
    assert "over 4 networks" in (tmp_path / "out" / "study.md").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "begins" not in again.stdout
    written = (tmp_path / "out" / "study.md").stat().st_mtime_ns
    command.append("--gin_bindings=Study.common=['gin/digits.gin']")
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert other.returncode == 2
    assert "holds a run with another configuration" in other.stderr
    assert (tmp_path / "out" / "study.md").stat().st_mtime_ns == written


def test_a_typing_error_in_any_run_is_found_before_the_first(tmp_path):
    runs = "Study.runs = {'AT': ['gin/at.gin'], 'AWP': ['gin/at_awp.gin', 'AWP.gama=0.01']}"
    (tmp_path / "tiny.gin").write_text(STUDY.replace(STUDY.splitlines()[1], runs))
    command = [sys.executable, "-m", "pipelines.study", f"--gin_file={tmp_path}/tiny.gin", f"--output={tmp_path}/out"]
    command.append(f"--runs={tmp_path}/runs")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert "Study.runs: AWP: " in done.stderr
    assert "Did you mean 'gamma'?" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_said_at_once_and_the_others_go_on(tmp_path):
    runs = "Study.runs = {'Broken': ['gin/at.gin', 'Linf.epsilon=8'], 'AT': ['gin/at.gin']}"
    text = STUDY.replace(STUDY.splitlines()[1], runs).replace("'best,last,epochs'", "'last'")
    (tmp_path / "tiny.gin").write_text(text.replace("Study.evaluate = 'best'", ""))
    command = [sys.executable, "-m", "pipelines.study", f"--gin_file={tmp_path}/tiny.gin", f"--output={tmp_path}/out"]
    command.append(f"--runs={tmp_path}/runs")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert "broken-seed0: failed, as said above; the same command tries again" in done.stderr
    assert f"see {tmp_path}/runs/broken-seed0.log" in done.stderr
    assert {file.stem for file in (tmp_path / "out" / "records").glob("*.json")} == {"at-seed0"}
