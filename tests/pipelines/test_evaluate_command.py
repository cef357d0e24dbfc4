"""pipelines.evaluate as a user types it."""

import json
import signal
import time

import absl.flags
import gin
import numpy as np
import pytest
from helpers import run_command, tiny_network, tiny_split

import pipelines.evaluate as command
from awp_tf.evaluation.protocol import Protocol
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from pipelines import _cli

FLAGS = absl.flags.FLAGS


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()
    FLAGS.unparse_flags()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network and its data."""
    folder = tmp_path_factory.mktemp("files")
    tiny_network().save(folder / "tiny.keras")
    split = tiny_split(40)
    np.savez(folder / "rows.npz", x_test=split.images, y_test=split.labels)
    return folder


def run(*flags):
    run_command(command, *flags)


def given(files, out, *flags):
    return [
        f"--network={files}/tiny.keras",
        f"--data={files}/rows.npz",
        f"--output={out}",
        "--threat=linf:0.1",
        *flags,
    ]


def test_any_network_on_any_data(files, tmp_path, capsys):
    network = (files / "tiny.keras").read_bytes()
    run(*given(files, tmp_path / "out", "--attacks=fgsm,pgd-5", "--max_examples=20", "--save_adversarial"))
    assert (files / "tiny.keras").read_bytes() == network
    card = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert card["images"] == {"test": 20}
    assert (card["name"], card["threat"], card["eps"]) == ("tiny", "Linf", "0.1")
    assert np.load(tmp_path / "out" / "adversarial_fgsm.npy").shape == (20, 8, 8, 1)
    printed = capsys.readouterr().out
    assert "| fgsm " in printed
    assert "still robust" in printed
    assert "\nWithout AutoAttack (standard) these accuracies are upper bounds.\n" in printed


def test_strict_fails_where_a_check_fails(files, tmp_path, capsys):
    import keras

    network = tiny_network()
    softmax = keras.Model(network.inputs, keras.layers.Softmax()(network.outputs[0]))
    softmax.save(tmp_path / "softmax.keras")
    flags = given(files, tmp_path / "out", "--attacks=fgsm", "--strict")
    with pytest.raises(SystemExit) as stop:
        run(f"--network={tmp_path}/softmax.keras", *flags[1:])
    assert stop.value.code == 1
    assert "NOT TO BE TRUSTED: logits: outputs are probabilities" in capsys.readouterr().out
    assert (tmp_path / "out" / "evaluation.json").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run's folder, as training leaves it."""
    path = tmp_path_factory.mktemp("runs") / "trades_awp+digits"
    path.mkdir()
    small_cnn(shape=(8, 8, 1), classes=10, width=4).save(path / "best.keras")
    (path / "config.gin").write_text(_cli.parse(["gin/trades_awp.gin", "gin/digits.gin"], []))
    (path / "result.json").write_text("{}")
    gin.clear_config()
    return path


@pytest.mark.parametrize("recipe", [[], ["--gin_file=gin/protocols/quick.gin"]])
def test_a_finished_run_as_it_was_trained_also_where_its_protocol_is_changed(recipe, trained, tmp_path):
    run(
        *recipe,
        f"--workdir={trained}",
        f"--output={tmp_path}/out",
        "--attacks=fgsm",
        "--splits=both",
        "--max_examples=50",
    )
    card = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (card["name"], card["dataset"], card["eps"]) == ("trades_awp+digits", "digits", "0.15")
    assert card["images"] == {"test": 50, "train": 50}
    assert card["robust_gap"].keys() == {"clean", "fgsm", "worst case"}


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        ("standard", ["standard"]),
        ("quick", ["quick"]),
        ("rand", ["rand"]),
        ("paper", ["fgsm", "pgd-20", "pgd-100", "cw-100", "spsa", "standard"]),
    ],
)
@pytest.mark.parametrize("leaf", ["at_awp", "mart"])
def test_every_leaf_can_be_measured_by_every_protocol(leaf, protocol, names):
    _cli.parse([f"gin/{leaf}.gin", f"gin/protocols/{protocol}.gin"], [])
    made = _cli.call(Protocol)
    assert list(made.cascades(10, None)) == names
    assert made.threat.epsilon == pytest.approx(8 / 255)
    assert made.relative_step_size == 0.25


def test_an_attack_can_be_bound_in_gin():
    bindings = ["Protocol.attacks=['fgsm', @SPSA()]", "SPSA.samples=64", "SPSA.threat=%THREAT"]
    _cli.parse(["gin/at.gin"], bindings)
    searches = _cli.call(Protocol).cascades(10, None)["spsa"].searches["spsa"]
    assert (searches.samples, searches.threat.epsilon) == (64, pytest.approx(8 / 255))


BAD = {
    "no such network": (["--network=no.keras", "--data=digits"], "expected a .keras file"),
    "no data": (["--network={files}/tiny.keras"], "with --data (cifar10, digits, mine.npz)"),
    "no such data": (["--network={files}/tiny.keras", "--data=no.npz"], "no.npz: expected"),
    "wrong classes": (["--network={files}/tiny.keras", "--data=digits"], "expected 4 classes, received 10"),
    "epsilon 0": (["--threat=linf:0"], "Linf.epsilon"),
    "epsilon too large": (["--threat=linf:8"], 'write "8/255"'),
    "no radius": (["--threat=l2"], "expected a radius too"),
    "unknown threat": (["--threat=linv:0.1"], "Did you mean 'linf'"),
    "unknown attack": (["--attacks=sqare"], "Did you mean 'square'"),
    "unfinished run": (["--network=", "--data=", "--workdir=no/run"], "expected the folder of a run"),
    "nothing given": (["--network=", "--workdir="], "expected --workdir (a run's folder), or"),
    "bindings without a recipe": (["--gin_bindings=EPOCHS=1"], "--gin_bindings: expected them with --workdir only"),
    "data of a run": (["--network=", "--workdir=no/run"], "--data: expected it without --workdir"),
    "no examples": (["--max_examples=0"], "Protocol.examples"),
    "shard 0": (["--shard=0/8"], "shard: expected one of how many, from 1 on"),
    "shard 9 of 8": (["--shard=9/8"], "received '9/8'"),
    "no shard": (["--shard=x"], "received 'x'"),
    "more shards than images": (["--shard=2/41"], "at most 40 shards"),
    "more devices": (["--devices=3"], "devices: expected at most 2 logical CPUs, received 3"),
    "no device": (["--devices=0"], "devices: expected a whole number >= 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case, files, tmp_path):
    flags, message = BAD[case]
    flags = [flag.format(files=files) for flag in flags]
    names = {flag.split("=")[0] for flag in flags}
    rest = [flag for flag in given(files, tmp_path / "out") if flag.split("=")[0] not in names]
    if case == "no data":
        rest = [flag for flag in rest if not flag.startswith("--data")]
    with pytest.raises(UserError) as error:
        run(*flags, *rest)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_two_devices_write_the_files_of_one(files, tmp_path):
    few = ["--attacks=pgd-5", "--threat=linf:0.02", "--batch_size=4", "--check_examples=5"]
    for devices in (1, 2):
        run(*given(files, tmp_path / str(devices), *few, f"--devices={devices}"))
    one, two = ((tmp_path / name / "evaluation.npz").read_bytes() for name in ("1", "2"))
    assert one == two


@pytest.mark.slow
def test_killed_and_started_again_it_ends_the_same(files, tmp_path, commands):
    def evaluate(out):
        few = ["--attacks=apgd-ce+apgd-t+fab-t+square", "--threat=linf:0.02", "--batch_size=8"]
        return commands.start("pipelines.evaluate", *given(files, out, *few))

    assert evaluate(tmp_path / "whole").end().returncode == 0
    for signum, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        out = tmp_path / signum.name
        first = evaluate(out)
        first.until((out / "state" / "test" / "state.npz").exists)
        time.sleep(2)
        first.send_signal(signum)
        stopped = first.end()
        assert stopped.returncode == code, stopped
        assert not (out / "evaluation.json").exists()
        again = evaluate(out).end()
        assert again.returncode == 0, again
        assert (tmp_path / "whole" / "evaluation.npz").read_bytes() == (out / "evaluation.npz").read_bytes()


@pytest.mark.slow
def test_a_mistake_is_one_line_and_code_2(files, tmp_path, commands):
    done = commands.run("pipelines.evaluate", *given(files, tmp_path / "out", "--attacks=sqare"))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: attacks: expected one of")
