"""pipelines.train on several processes of this machine, which talk by the loopback device, as on several machines."""

import json
import os
import pathlib
import signal

import keras
import numpy as np
import pytest
from helpers import assert_same_weights

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent.parent
SETTINGS = (
    "EPOCHS=1",  # of 20 steps
    "BATCH_SIZE=16",
    "Data.limit=320",
    "AUGMENT=@PadCropFlip()",
    "PadCropFlip.pad=1",
    "Recipe.precision='float64'",
    "training/PGD.steps=2",
    "validation/Measurement.examples=40",
    "test/Measurement.examples=50",
    "EPOCHS=1",
)


def arguments(folder, *settings):
    files = [f"--gin_file=gin/{name}.gin" for name in ("trades_awp", "digits")]
    return [*files, *(f"--gin_bindings={setting}" for setting in settings), f"--workdir={folder}"]


@pytest.fixture(scope="module")
def start(commands):
    """pipelines.train with arguments on several workers, by tools.launch_local; one needs none."""

    def started(workers, arguments, *launch, **settings):
        if workers == 1:
            return commands.start("pipelines.train", *arguments, **settings)
        behind = ["--", "-m", "pipelines.train", *arguments]
        return commands.start("tools.launch_local", f"--workers={workers}", *launch, *behind, **settings)

    return started


def end(process, code=0, timeout=300):
    done = process.end(timeout)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def network(folder, name="last"):
    return keras.models.load_model(folder / f"{name}.keras")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("alone") / "run"
    end(start(1, arguments(folder, *SETTINGS)))
    return folder


@pytest.mark.parametrize(
    ("workers", "settings"),
    [
        (1, ("train.devices=4", "Recipe.accumulation=4")),
        (2, ("Recipe.accumulation=4", "train.collectives='ring'")),
    ],
    ids=repr,
)
def test_twenty_steps_of_trades_awp_are_the_same_however_they_are_shared(workers, settings, alone, start, tmp_path):
    said = end(start(workers, arguments(tmp_path / "run", *SETTINGS, *settings)))
    assert ("on 2 CPU of 2 machines" in said) == (workers == 2)
    assert not [line for line in said.splitlines() if line.startswith("[1]")]  # the chief alone prints
    for name in ("best", "last"):
        assert_same_weights(network(alone, name), network(tmp_path / "run", name), atol=1e-10)
    results = [json.loads((folder / "result.json").read_text()) for folder in (alone, tmp_path / "run")]
    assert results[0] == results[1]


def pids(folder):
    """Of the workers that train in folder, the chief first."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        if b"pipelines.train" in words and f"--workdir={folder}".encode() in words:
            config = dict(line.split(b"=", 1) for line in (entry / "environ").read_bytes().split(b"\0") if b"=" in line)
            found.append((json.loads(config[b"TF_CONFIG"])["task"]["index"], int(entry.name)))
    return [pid for _, pid in sorted(found)]


LONGER = (*SETTINGS, "EPOCHS=4", "train.checkpoint_minutes=0.02")


@pytest.fixture(scope="module")
def longer(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("longer") / "run"
    end(start(1, arguments(folder, *LONGER)))
    return folder


def test_a_signal_to_any_worker_stops_all_at_one_step_and_another_number_of_workers_goes_on(longer, start, tmp_path):
    folder = tmp_path / "run"
    process = start(2, arguments(folder, *LONGER))
    process.until(lambda: "epoch 2/4" in process.printed())
    os.kill(pids(folder)[1], signal.SIGTERM)
    said = end(process, 143)
    assert said.count("stopped by SIGTERM; the state is saved") == 2
    assert not (folder / "result.json").exists()
    said = end(start(1, arguments(folder, *LONGER)))
    assert "going on from epoch" in said
    assert_same_weights(network(longer), network(folder), atol=1e-10)
    assert json.loads((longer / "result.json").read_text()) == json.loads((folder / "result.json").read_text())


def test_a_worker_that_is_killed_and_all_started_again_change_nothing(longer, start, tmp_path):
    folder = tmp_path / "run"
    process = start(2, arguments(folder, *LONGER), "--restarts=1")
    process.until(lambda: "epoch 2/4" in process.printed())
    os.kill(pids(folder)[1], signal.SIGKILL)
    said = end(process)
    assert "another worker is gone" in said
    assert "all begin again" in said
    assert_same_weights(network(longer), network(folder), atol=1e-10)


OWN = """
import keras
from awp_tf.networks.layers import BatchNorm

def normalised(*, shape, classes):
    layers = [keras.layers.Conv2D(4, 3), BatchNorm(synchronized=True), keras.layers.ReLU(), keras.layers.Flatten()]
    return keras.Sequential([keras.Input(shape), *layers, keras.layers.Dense(classes)], name="normalised")
"""


def test_synchronized_statistics_are_those_of_the_whole_batch_on_two_workers(start, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    settings = (*SETTINGS, "NETWORK=@normalised", "Data.limit=64", "Recipe.xla=False")
    for name, workers in (("one", 1), ("two", 2)):
        end(start(workers, [*arguments(tmp_path / name, *settings), f"--import={tmp_path / 'own.py'}"]))
    assert_same_weights(network(tmp_path / "one"), network(tmp_path / "two"), atol=1e-10)


def test_a_worker_that_comes_back_to_a_finished_run_waits_for_nobody(alone, start):
    place = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 1}}
    assert "holds a finished run" in end(start(1, arguments(alone, *SETTINGS), TF_CONFIG=json.dumps(place)))


def refused(start, workers):
    """The last line of each worker, of which index: (arguments, cwd) are given; each ends with 2, within seconds."""
    from tools.launch_local import free_ports

    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index, (given, cwd) in workers.items():
        place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(start(1, given, TF_CONFIG=json.dumps(place), cwd=cwd))
    return [end(process, 2, timeout=90).strip().splitlines()[-1] for process in processes]


def test_other_configurations_or_absence_or_an_odd_batch_are_one_line_on_every_worker(start, tmp_path):
    def those(*settings):
        return arguments(tmp_path / "run", *SETTINGS, *settings), ROOT

    line, same = refused(start, {0: those(), 1: those("AWP.gamma=0.5")})
    assert line == same
    assert "expected the same configuration on all workers, received on worker 1: AWP.gamma = 0.5" in line
    (line,) = refused(start, {0: those("train.wait_seconds=2")})
    assert "did not come within 2 s; start all workers" in line
    for line in refused(start, {index: those("BATCH_SIZE=15") for index in (0, 1)}):
        assert "batch_size: expected a multiple of the 2 devices that share it, received 15" in line
    assert not list(tmp_path.iterdir())


def test_other_data_on_one_worker_are_refused_by_all(start, tmp_path):
    settings = (*SETTINGS, "Data.source=@npz", "npz.path='data.npz'", "Data.limit=None", "Data.validation=4")
    given = [word.replace("=gin/", f"={ROOT}/gin/") for word in arguments(tmp_path / "run", *settings)]
    workers = {}
    for index, count in enumerate((60, 61)):
        x, y = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 1)).astype(np.uint8), np.arange(count) % 10
        (tmp_path / str(index)).mkdir()
        np.savez(tmp_path / str(index) / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        workers[index] = given, tmp_path / str(index)
    for line in refused(start, workers):
        assert "expected the same data on all workers, received on worker 1" in line
    assert not (tmp_path / "run").exists()
