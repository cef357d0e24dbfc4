"""Which network a command looks at: the same flags mean the same in all of them."""

import json

import gin
import pytest
from helpers import run_command

import pipelines.evaluate
import pipelines.export
import pipelines.landscape
from awp_tf.data import digits
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from pipelines import _cli, _flags

COMMANDS = [pipelines.evaluate, pipelines.export, pipelines.landscape]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.split(".")[1])


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


@pytest.fixture
def trained(tmp_path):
    """A finished run's folder, as training leaves it."""
    path = tmp_path / "runs" / "at"
    (path / "epochs").mkdir(parents=True)
    for width, name in enumerate(("best", "last", "epochs/epoch-0010"), start=2):
        small_cnn(shape=(8, 8, 1), classes=10, width=width).save(path / f"{name}.keras")
    bindings = ["Landscape.alphas=(0,)", "Landscape.directions=1", "Landscape.awp_length=0"]
    (path / "config.gin").write_text(_cli.parse(["gin/at.gin", "gin/digits.gin"], bindings))
    (path / "data.json").write_text(json.dumps(digits().identity))
    (path / "result.json").write_text("{}")
    gin.clear_config()
    return path


@pytest.mark.parametrize(
    ("network", "place"), [(None, "evaluation"), ("best", "evaluation"), ("last", "evaluation_last")]
)
def test_evaluation_of_each_network_has_a_place_of_its_own(network, place, trained):
    chosen = [f"--network={network}"] if network else []
    few = ["--attacks=fgsm", "--max_examples=20", "--check_examples=4"]
    run_command(pipelines.evaluate, f"--workdir={trained}", *chosen, *few)
    assert (trained / place / "evaluation.json").exists()
    assert {path.name for path in trained.iterdir() if path.name.startswith("evaluation")} == {place}


@pytest.mark.parametrize(
    ("kept", "name"), [(["best", "last"], "best"), (["best"], "best"), (["last"], "last"), ([], "last")]
)
def test_the_last_network_takes_the_place_of_a_best_one_that_a_run_does_not_keep(kept, name, tmp_path):
    for each in kept:
        (tmp_path / f"{each}.keras").touch()
    assert _flags.default_network(tmp_path) == name


@pytest.mark.slow
def test_export_takes_the_network_that_is_named(trained, tmp_path):
    sizes = []
    for network in ("best", "epoch-0010", str(trained / "best.keras")):
        run_command(
            pipelines.export, f"--workdir={trained}", f"--network={network}", f"--output={tmp_path}/{len(sizes)}"
        )
        card = json.loads((tmp_path / f"{len(sizes)}/at/1/assets.extra/robustness_card.json").read_text())
        sizes.append(card["export"]["network_sha256"])
    assert sizes[0] == sizes[2] != sizes[1]


@every_command
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--network=epoch-0020"], r"there is no .*epoch-0020\.keras"),
        (["--network=frist"], "expected best, last, epoch-0010 or epochs"),
        (["--data=digits"], "--data: expected it without --workdir"),
    ],
)
def test_what_there_is_not_is_refused_alike(command, flags, message, trained, tmp_path):
    with pytest.raises(UserError, match=message):
        run_command(command, f"--workdir={trained}", *flags, f"--output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [pipelines.evaluate, pipelines.export])
def test_one_network_at_a_time_where_only_one_can_be(command, trained, tmp_path):
    small_cnn(shape=(8, 8, 1), classes=10, width=2).save(trained / "epochs" / "epoch-0020.keras")
    with pytest.raises(UserError, match=r"--network: expected one network to .*, received epochs"):
        run_command(command, f"--workdir={trained}", "--network=epochs", f"--output={tmp_path}/out")


@every_command
@pytest.mark.parametrize("what", ["class names", "test images"])
def test_data_that_changed_since_training_are_refused(command, what, trained, tmp_path):
    identity = {**digits().identity, what: "others"}
    (trained / "data.json").write_text(json.dumps(identity))
    with pytest.raises(UserError, match=f"its data have changed since training began: {what} others, now"):
        run_command(command, f"--workdir={trained}", f"--output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


@every_command
def test_a_configuration_with_imports_is_refused(command, trained, tmp_path):
    file = trained / "config.gin"
    file.write_text("import antigravity\n" + file.read_text())
    with pytest.raises(UserError, match="expected settings only, received an import"):
        run_command(command, f"--workdir={trained}", f"--output={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_another_best_keras_is_not_that_of_the_run(trained, tmp_path):
    (tmp_path / "other").mkdir()
    small_cnn(shape=(8, 8, 1), classes=10, width=5).save(tmp_path / "other" / "best.keras")
    few = ["--attacks=fgsm", "--max_examples=20", "--check_examples=4"]
    run_command(pipelines.evaluate, f"--workdir={trained}", f"--network={tmp_path}/other/best.keras", *few)
    card = json.loads((trained / "evaluation_other_best" / "evaluation.json").read_text())
    assert card["name"] == "at, other/best"
    assert not (trained / "evaluation").exists()


@pytest.mark.parametrize("flag", ["output", "network", "transfer_from"])
def test_paths_of_all_flags_are_those_of_this_machine(flag, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [f"--network={trained}/best.keras", "--data=digits", "--attacks=transfer", "--output=out"]
    with pytest.raises(UserError, match=r"gs://x/best\.keras: expected a path on this machine"):
        run_command(pipelines.evaluate, *flags, f"--{flag}=gs://x/best.keras")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
