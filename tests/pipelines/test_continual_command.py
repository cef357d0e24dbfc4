"""Continual learning from its command line: every recipe with all tasks, bad input, a kill, what comes after."""

import json
import pathlib
import re
import signal

import gin
import pytest

from awp_tf.continual.basis import NoBasis
from awp_tf.continual.settings import Continual
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import FS, Identity, LookAhead
from pipelines import _cli

ROOT = pathlib.Path(__file__).parents[2]
LEAVES = sorted(path.stem for path in (ROOT / "gin").glob("*.gin") if "include 'gin/continual.gin'" in path.read_text())
TASKS = sorted(path.stem for path in (ROOT / "gin" / "tasks").glob("*.gin"))
SAID = {"split_tiny_imagenet": ["PATH='tiny-imagenet'"]}
# (Perturbation, memory, bases, importance) with the memory of permuted digits.
WHAT = {
    "sgd": (Identity(), 0, False, "one"),
    "er": (Identity(), 200, False, "one"),
    "fs_er": (FS(1, 0.05), 200, False, "one"),
    "gpm": (Identity(), 0, True, "one"),
    "la_gpm": (LookAhead(2, 0.05), 200, True, "one"),
    "fs_gpm": (FS(2, 0.05), 200, True, "one"),
    "dgpm": (FS(2, 0.05), 200, True, "sigmoid"),
    "la_dgpm": (LookAhead(2, 0.05), 200, True, "sigmoid"),
    "fs_dgpm": (FS(2, 0.05), 200, True, "sigmoid"),
}


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


def settings(*files, bindings=()):
    text = _cli.parse([f"gin/{file}.gin" for file in files], list(bindings), root="Continual.learner")
    return text, _cli.call(Continual)


def test_there_is_a_recipe_for_each_method():
    assert sorted(WHAT) == LEAVES


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_recipe_is_what_it_says(leaf):
    _, found = settings(leaf)
    learner = found.learner
    said = (learner.perturbation, learner.memory, not isinstance(learner.basis, NoBasis), learner.importance.rule)
    assert said == WHAT[leaf]
    assert (learner.search_on == "both") == (leaf == "fs_er")
    assert learner.plain_descent == (leaf == "dgpm")
    assert learner.importance.ascend == (leaf == "la_dgpm")
    assert learner.basis.from_task == (leaf == "gpm")
    assert (found.epochs, found.data.batch_size, learner.glances, learner.learning_rate) == (1, 10, 5, 0.01)


def macros(file):
    return set(re.findall(r"^([A-Z][A-Z_]*) *=", (ROOT / "gin" / "tasks" / f"{file}.gin").read_text(), re.MULTILINE))


@pytest.mark.parametrize("tasks", TASKS)
def test_tasks_bind_the_same_names_and_leave_nothing_of_others(tasks):
    common = set.intersection(*map(macros, TASKS))
    assert {"TASKS", "EPOCHS", "BATCH_SIZE", "GLANCES", "LEARNING_RATE", "MEMORY", "FLAT_STEP", "THRESHOLD"} <= common
    assert macros(tasks) - common <= {"DATA", "MEAN", "STD", "SIZE"}  # which others include
    before = next(other for other in TASKS if other not in (tasks, "split_tiny_imagenet"))
    _, alone = settings("fs_dgpm", f"tasks/{tasks}", bindings=SAID.get(tasks, ()))
    _, after = settings("fs_dgpm", f"tasks/{before}", f"tasks/{tasks}", bindings=SAID.get(tasks, ()))
    for part in ("learner", "tasks", "epochs", "early_stop", "validation", "test", "sharpness"):
        assert repr(getattr(alone, part)) == repr(getattr(after, part))
    assert (alone.data.batch_size, alone.data.validation) == (after.data.batch_size, after.data.validation)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_method_and_its_attack_come_in_by_their_file(leaf):
    _, found = settings(leaf, "methods/trades")
    assert found.attacks
    assert found.learner.attack.threat == found.sharpness.attack.threat == found.test.attack.threat
    assert found.learner.memory == WHAT[leaf][1]


def test_a_saved_configuration_gives_itself_and_the_digits_may_come_last(tmp_path):
    text, _ = settings("fs_dgpm", "tasks/split_cifar10")
    (tmp_path / "config.gin").write_text(text)
    assert _cli.parse_run(tmp_path, [], []) == text
    assert settings("fs_dgpm", "digits")[1].tasks.count == 5


@pytest.mark.parametrize(
    ("files", "root", "message"),
    [
        (["gin/at.gin"], "Continual.learner", "expected a recipe of continual learning"),
        (["gin/fs_dgpm.gin"], "train.recipe", "expected a recipe"),
        (
            ["gin/fs_dgpm.gin", "gin/tasks/split_cifar.gin"],
            "Continual.learner",
            "Did you mean 'gin/tasks/split_cifar10",
        ),
    ],
)
def test_recipes_of_another_command_and_unknown_tasks_are_refused(files, root, message):
    with pytest.raises(UserError, match=message):
        _cli.parse(files, [], root=root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["MEMORY=5"], "Learner.memory: expected at least the 10 images of a batch"),
        (
            ["TASKS=@SplitClasses()", "SplitClasses.count=11"],
            "SplitClasses.count: expected a number of tasks",
        ),
        (["Importance.rule='clp'"], "Importance.rule: expected one of one, clip, sigmoid, frozen"),
        (["PermutedPixels.samples=5000"], "PermutedPixels.samples: expected at most the 1237 training images"),
    ],
)
def test_bad_input_gives_one_line_code_2_and_no_folder(bindings, message, tmp_path, commands):
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    done = commands.run("pipelines.continual", "--gin_file=gin/fs_dgpm.gin", *flags, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_everything_later_takes_it(tmp_path, commands):
    """Digits in two tasks of five classes: stopped, gone on with, evaluated, drawn, exported."""
    run = tmp_path / "digits"
    split = ["TASKS=@SplitClasses()", "SplitClasses.count=2", "EPOCHS=2", "Sharpness.directions=1"]
    flags = ["--gin_file=gin/fs_dgpm.gin", *(f"--gin_bindings={b}" for b in split), f"--workdir={run}"]
    process = commands.start("pipelines.continual", *flags)
    process.until((run / "checkpoints").exists)
    process.send_signal(signal.SIGTERM)
    stopped = process.end()
    assert stopped.returncode == 143, stopped
    done = commands.run("pipelines.continual", *flags)
    assert done.returncode == 0, done
    assert "going on with task" in done.stdout
    result = json.loads((run / "result.json").read_text())
    assert result["summary"]["clean"]["acc"] > 0.85
    for name, *more in (
        ["evaluate", "--attacks=pgd-20", "--max_examples=40", "--gin_bindings=Protocol.check_examples=10"],
        ["landscape", "--max_examples=40", "--directions=1", "--alphas=-1:1:3"],
        ["export", f"--output={tmp_path / 'serving'}"],
    ):
        done = commands.run(f"pipelines.{name}", f"--workdir={run}", *more)
        assert done.returncode == 0, done
    card = json.loads(next((tmp_path / "serving").rglob("robustness_card.json")).read_text())
    assert [head["signature"] for head in card["export"]["heads"]] == ["task_1", "task_2"]
