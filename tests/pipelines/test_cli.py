"""Commands as a user types them, and every gin file."""

import os
import pathlib
import re
import shutil
import signal

import gin
import keras
import pytest
from helpers import assert_same_weights

from awp_tf.data import Data
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT, MART, TRADES, Standard
from awp_tf.perturbations import AWP, Identity
from awp_tf.training.recipe import Recipe
from pipelines import _cli

ROOT = pathlib.Path(__file__).parents[2]
TRAINS = re.compile(r"^include 'gin/(defaults|rst|pretrain)\.gin'", re.MULTILINE)  # those of pipelines.train
LEAVES = sorted(path.stem for path in (ROOT / "gin").glob("*.gin") if TRAINS.search(path.read_text()))
DIGITS = ["--gin_file=gin/trades_awp.gin", "--gin_file=gin/digits.gin"]
QUICK = ["--gin_bindings=EPOCHS=2", "--gin_bindings=test/Measurement.examples=100"]


def parse(*files, bindings=()):
    said = ["EXTRA='pseudo.npz'"] if files[0].startswith(("rst", "dm_")) else []
    if "digits" not in files:  # which brings data and a network
        said += ["PATH='imagenet'"] if any("imagenet" in file for file in files) else []
        said += ["PRETRAINED='best.keras'"] if any(file.startswith("pretrain") for file in files) else []
    return _cli.parse([f"gin/{file}.gin" for file in files], [*said, *bindings])


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


def recipe():
    return gin.get_configurable(Recipe.__name__)()


OF_A_PAPER = [leaf for leaf in LEAVES if leaf.split("_")[0] in ("standard", "at", "trades", "mart")]


@pytest.mark.parametrize("leaf", OF_A_PAPER)
def test_every_leaf_is_the_setting_of_its_paper(leaf):
    parse(leaf)
    method, _, perturbation = leaf.partition("_")
    kinds = {"standard": Standard, "at": AT, "trades": TRADES, "mart": MART}
    made, data = recipe(), gin.get_configurable(Data.__name__)()
    assert isinstance(made.method, kinds[method])
    assert isinstance(made.perturbation, AWP if perturbation else Identity)
    assert (made.weight_decay, made.momentum, data.batch_size) == (5e-4, 0.9, 128)
    assert (made.learning_rate.initial, made.learning_rate.epochs, made.learning_rate.drops) == (0.1, 200, (0.5, 0.75))
    assert made.whole_epochs == (method in ("trades", "mart"))
    assert data.augment.mode == ("zero" if method in ("trades", "mart") else "reflect")
    if method != "standard":
        assert (made.attack.steps, made.attack.relative_step_size) == (10, 0.25)
        assert made.attack.threat.epsilon == pytest.approx(8 / 255)


def test_gammas_and_betas_are_those_of_the_references():
    parse("at_awp")
    assert recipe().perturbation == AWP(0.01)
    parse("trades_awp")
    assert (recipe().perturbation, recipe().perturb_from) == (AWP(0.005), 9 / 200)
    assert recipe().method == TRADES(6.0)
    parse("mart_awp")
    assert (recipe().perturbation, recipe().method) == (AWP(0.005), MART(5.0))


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_resolved_text_is_a_configuration_that_gives_itself(leaf, tmp_path):
    text = parse(leaf, "digits", bindings=["EPOCHS=7"])
    (tmp_path / "again.gin").write_text(text)
    assert _cli.parse([str(tmp_path / "again.gin")], []) == text


def test_every_header_names_its_command_source_and_expectation():
    for leaf in LEAVES:
        text = (ROOT / "gin" / f"{leaf}.gin").read_text()
        assert f"python -m pipelines.train --gin_file=gin/{leaf}.gin" in text
        assert "# Source: " in text
        assert "# Expected: " in text


@pytest.mark.parametrize(
    ("files", "bindings", "message"),
    [
        (["trades_awpp"], [], r"received 'gin/trades_awpp\.gin'\. Did you mean 'gin/trades_awp\.gin'\?"),
        (["trades_awp"], ["AWP.gama=1"], r"doesn't have a parameter named 'gama'\. Did you mean 'gamma'\? .*line 1"),
        (
            ["trades_awp"],
            ["EPOCH=1"],
            r"EPOCH: nothing in this recipe uses a macro .* Did you mean 'EPOCHS'\? \(in --gin_bindings",
        ),
        (["trades_awp"], ["METHOD=@TRADE()"], r"'@TRADE\(\)'.* Did you mean 'TRADES'\?"),
        (["trades_awp"], ["TRADESS.beta=1"], r"'TRADESS'.* Did you mean 'TRADES'\?"),
        (["trades_awp"], ["AWP.gamma=%GAMA"], r"%GAMA: no file gives this macro a value"),
        (["trades_awp"], ["AWP.gamma="], r"Unable to parse value\. \(in --gin_bindings=AWP\.gamma=\)"),
        (["digits"], [], r"expected a recipe \(try --gin_file=gin/trades_awp\.gin\) first"),
    ],
)
def test_typing_errors_name_the_place_and_the_nearest_name(files, bindings, message):
    with pytest.raises(UserError, match=message) as error:
        parse(*files, bindings=bindings)
    assert "\n" not in str(error.value)


def test_a_typing_error_in_a_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "mine.gin"
    for text, message in [
        ("EPOCHS = 3\n\nSEEED = 5\n", r'SEEED.*Did you mean \'SEED\'\? \(in file ".*mine\.gin", line 3\)'),
        ("EPOCHS = 3\nAWP.gamma = @\n", r'\(in file ".*mine\.gin", line 2\)'),
        ("\nAWP.gamme = 5\n", r"'gamme'.*'gamma'.*mine\.gin.*line 2"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            _cli.parse(["gin/trades_awp.gin", str(file)], [])


def test_replacing_a_part_by_a_binding_is_no_typing_error():
    parse("trades_awp", bindings=["Recipe.learning_rate=@Constant()", "Constant.value=0.1"])


def test_the_folder_is_named_after_the_files():
    assert _cli.default_workdir(["gin/trades_awp.gin", "gin/digits.gin"]) == os.path.join("runs", "trades_awp+digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--gin_file: expected a recipe, received none"),
        (["--gin_fil=x"], "Unknown command line flag 'gin_fil'"),
        (["gin/at.gin"], "expected only flags, received 'gin/at.gin'"),
        ([*DIGITS, "--gin_bindings=Linf.epsilon=8"], "Linf.epsilon: expected at most 1, received 8"),
        (["--gin_file=gin/at.gin"], "gin/digits.gin for the embedded handwritten digits"),
    ],
    ids=["no-recipe", "flag", "argument", "grey-levels", "no-data"],
)
def test_bad_input_gives_one_line_code_2_and_no_folder(tmp_path, arguments, message, commands):
    workdir = tmp_path / "run"
    done = commands.train(*arguments, f"--workdir={workdir}", TFDS_DATA_DIR="/nonexistent")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout.strip()
    assert not workdir.exists()


def test_help_shows_every_flag(commands):
    done = commands.train("--help")
    assert done.returncode == 1  # as absl has it
    for flag in (
        "--gin_file",
        "--gin_bindings",
        "--workdir",
        "python -m pipelines.train --gin_file=gin/trades_awp.gin",
    ):
        assert flag in done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory, commands):
    """The README's first command, shortened, run to its end."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, commands.train(*DIGITS, *QUICK, f"--workdir={workdir}")


def test_the_first_command_of_the_readme_works_and_ends_with_a_table(whole):
    workdir, done = whole
    out = done.stdout
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| best\.keras \| +[\d.]+ % +\| +[\d.]+ % ", out)
    for text in ("epoch 2/2", "clean, test", "PGD-20, test", "PGD-20, train", "robust gap", str(workdir)):
        assert text in out
    assert not done.stderr.strip()


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_killed_run_goes_on_as_if_it_had_not_been(whole, tmp_path, signum, code, commands):
    workdir = tmp_path / "run"
    arguments = [*DIGITS, *QUICK, f"--workdir={workdir}"]
    process = commands.start("pipelines.train", *arguments)
    process.until(lambda: list(workdir.glob("checkpoints/*.index")))
    process.send_signal(signum)
    stopped = process.end(60)
    assert stopped.returncode == code
    if signum != signal.SIGKILL:
        assert (
            f"stopped by {signum.name}; the state is saved, and the same command goes on from there" in stopped.stderr
        )
    assert not (workdir / "result.json").exists()
    done = commands.train(*arguments)
    assert done.returncode == 0
    assert "going on from epoch 1" in done.stdout
    for name in ("best", "last"):
        assert_same_weights(
            keras.models.load_model(workdir / f"{name}.keras"), keras.models.load_model(whole[0] / f"{name}.keras")
        )
    assert (workdir / "result.json").read_text() == (whole[0] / "result.json").read_text()


@pytest.mark.slow
def test_a_second_start_after_the_end_changes_nothing(whole, tmp_path, commands):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    before = {f: f.read_bytes() for f in workdir.rglob("*") if f.is_file()}
    done = commands.train(*DIGITS, *QUICK, f"--workdir={workdir}")
    assert done.returncode == 0
    assert "holds a finished run; nothing to do" in done.stdout
    assert before == {f: f.read_bytes() for f in workdir.rglob("*") if f.is_file()}


@pytest.mark.slow
@pytest.mark.cifar10
def test_the_paper_recipe_starts_on_cifar10_as_it_is(tmp_path, commands):
    small = ["preact_resnet18.width=2", "EPOCHS=1", "Data.limit=256", "validation/Measurement.examples=50"]
    settings = [f"--gin_bindings={b}" for b in (*small, "test/Measurement.examples=100")]
    done = commands.train("--gin_file=gin/trades_awp.gin", *settings, f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "cifar10: 256 images to train on, 1,000 to validate, 10,000 to test, 10 classes" in done.stdout


@pytest.mark.parametrize(
    ("leaf", "binding", "message"),
    [
        ("at", "ExtraData.ratio=0.5", "ExtraData.ratio: changes nothing, since no part of this recipe is ExtraData"),
        ("at", "SAM.rho=0.1", r"SAM.rho: changes nothing.*\(in --gin_bindings=SAM.rho=0.1\)"),
        ("sam", "AWP.gamma=0.1", "AWP.gamma: changes nothing, since no part of this recipe is AWP"),
        ("at", "Learner.memory=3", "Learner.memory: changes nothing, since no part of this recipe is Learner"),
        ("at", "Study.seeds=(1,)", "Study.seeds: changes nothing, since no part of this recipe is Study"),
    ],
)
def test_a_setting_of_a_part_that_is_not_there_is_a_slip(leaf, binding, message):
    with pytest.raises(UserError, match=message):
        parse(leaf, bindings=[binding])
