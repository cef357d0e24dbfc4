import json

import pytest

from awp_tf.infra.errors import UserError
from tools import continual_runs


def result_of(last, robust=None, rise=None, seconds=10.0):
    """Of two tasks: the first one is learned to 0.9 and falls to last, the second stays at 0.8."""
    found = {
        "accuracy": {"clean": [[0.9], [last, 0.8]]},
        "cost": [{"train_seconds": seconds, "basis_seconds": 1.0}] * 2,
    }
    if robust is not None:
        found["accuracy"]["robust"] = [[0.5], [robust, 0.4]]
    if rise is not None:
        found["sharpness"] = {"alphas": [0.5, 1.0], "rise": [[[0.1, 0.2]], [[0.1, rise], [0.1, rise + 0.2]]]}
    return found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that makes the folder of a run; we are where they are."""
    monkeypatch.chdir(tmp_path)

    def make(name, result):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.gin").write_text("")
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result))

    return make


@pytest.fixture
def runs(place):
    """Two recipes, two seeds each, of the second one a third."""
    for seed, last in enumerate((0.5, 0.7)):
        place(f"er-seed{seed}", result_of(last, 0.1 * seed, 0.3))
        place(f"fs_dgpm-seed{seed}", result_of(last + 0.1, 0.2, 0.1, seconds=20.0))
    place("fs_dgpm-seed2", result_of(0.9, 0.2, 0.1))


def cells(text, row):
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    names = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    return dict(zip(names, [cell.strip() for cell in line.strip("|").split("|")], strict=True))


@pytest.mark.usefixtures("runs")
def test_a_row_is_the_mean_over_seeds_with_its_error():
    row = cells(continual_runs.means(continual_runs.read_runs(["*-seed?"])), "er")
    assert row["seeds"] == "2"
    assert row["ACC"] == "70.00 ± 5.00"  # 65 and 75
    assert row["BWT"] == "-30.00 ± 10.00"  # -40 and -20
    assert row["LA"] == "85.00 ± 0.00"
    assert row["robust BWT"] == "-45.00 ± 5.00"
    assert row["sharpness at 1"] == "0.400 ± 0.000"
    assert row["training, s"] == "22 ± 0"


@pytest.mark.usefixtures("runs")
def test_differences_are_between_runs_of_one_seed():
    row = cells(continual_runs.differences(continual_runs.read_runs(["*-seed?"]), "er"), "fs_dgpm")
    assert row["seeds"] == "2"  # the third one has no partner
    assert row["ACC"] == "+5.00 ± 0.00"
    assert row["robust ACC"] == "+7.50 ± 2.50"
    assert row["sharpness at 1"] == "-0.200 ± 0.000"


def test_what_a_recipe_lacks_is_a_dash_and_no_zero(place):
    place("er-seed0", result_of(0.5))
    place("at", result_of(0.5, robust=0.1, rise=0.3))
    groups = continual_runs.read_runs(["er-seed0", "at"])
    assert cells(continual_runs.means(groups), "er")["robust ACC"] == "-"
    assert cells(continual_runs.means(groups), "er")["sharpness at 1"] == "-"
    assert cells(continual_runs.means(groups), "at")["ACC"] == "65.00"  # of one seed there is no error
    assert cells(continual_runs.differences(groups, "er"), "at")["robust ACC"] == "-"
    assert list(cells(continual_runs.means(groups), "er"))[-1] == "training, s"


def test_sharpness_is_compared_at_an_alpha_that_all_have(place):
    place("er-seed0", result_of(0.5, rise=0.3))
    place("sam-seed0", result_of(0.5) | {"sharpness": {"alphas": [0.5, 2.0], "rise": [[[1, 2]], [[1, 2], [3, 4]]]}})
    text = continual_runs.means(continual_runs.read_runs(["er-seed0", "sam-seed0"]))
    assert cells(text, "er")["sharpness at 0.5"] == "0.100"
    assert cells(text, "sam")["sharpness at 0.5"] == "2.000"


@pytest.mark.usefixtures("runs")
def test_figures_name_the_recipes_once():
    files = continual_runs.draw_figures(continual_runs.read_runs(["*-seed?"]))
    assert set(files) == {f"continual_{name}.{kind}" for name in ("acc", "sharpness") for kind in ("png", "svg")}
    for name in ("continual_acc.svg", "continual_sharpness.svg"):
        assert files[name].decode().count(">fs_dgpm</text>") == 1
    assert files["continual_acc.svg"].decode().count(">robust ACC (%)</text>") == 1


def test_without_sharpness_there_is_one_figure(place):
    place("er-seed0", result_of(0.5))
    files = continual_runs.draw_figures(continual_runs.read_runs(["er-seed0"]))
    assert set(files) == {"continual_acc.png", "continual_acc.svg"}
    assert "robust" not in files["continual_acc.svg"].decode()


@pytest.mark.parametrize(
    ("name", "result", "message"),
    [
        ("unfinished-seed0", None, r"expected the folder of a finished run \(with result\.json\)"),
        ("at-seed0", {"best": {"test_clean": 0.9}}, "at-seed0: expected the folder of a run of pipelines.continual"),
        ("list-seed0", [1, 2], "list-seed0: expected the folder of a run of pipelines.continual"),
        (
            "row-seed0",
            result_of(0.5) | {"accuracy": {"clean": [[0.5], [0.5]]}},
            "row-seed0: .*rows: expected accuracies on 1, 2",
        ),
        ("one-seed0", result_of(0.5) | {"accuracy": {"clean": [[0.5]]}}, "equally many tasks, received 1 and 2"),
        ("other/er-seed0", result_of(0.5), "each recipe and seed once"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_what_cannot_be_compared_is_one_line(place, name, result, message):
    place(name, result)
    with pytest.raises(UserError, match=message) as error:
        continual_runs.read_runs(["er-seed*", name])
    assert "\n" not in str(error.value)


def test_broken_json_and_no_folder_are_one_line(place, tmp_path):
    place("er-seed0", result_of(0.5))
    (tmp_path / "er-seed0" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"er-seed0/result\.json: expected JSON"):
        continual_runs.read_runs(["er-seed0"])
    with pytest.raises(UserError, match=r"expected the folder of a run \(with config\.gin\), received 'none\*'"):
        continual_runs.read_runs(["none*"])


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
def test_the_command_prints_tables_and_draws(commands, tmp_path):
    def command(*flags):
        return commands.run("tools.continual_table", f"--runs={tmp_path}/*-seed?", *flags)

    done = command("--against=er", f"--output={tmp_path}/figures")
    assert done.returncode == 0, done.stderr
    assert "| minus er " in done.stdout
    assert (tmp_path / "figures" / "continual_acc.png").stat().st_size > 5000
    wrong = command("--against=fs_dgmp")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.splitlines()[-1].startswith(
        "error: --against: expected one of er, fs_dgpm, received 'fs_dgmp'."
    )
