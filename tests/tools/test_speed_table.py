import pathlib

import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from pipelines import _cli
from tools import speed_table, step_speed
from tools.step_speed import Setting

GIN = pathlib.Path(__file__).parents[2] / "gin"
SMALL = ("preact_resnet18.width=2",)
SETTING = Setting(SMALL, np.full((2, 8, 8, 3), 0.5, np.float32), np.zeros(2, np.int32), 10)
STEP = {"images_per_second": 2.0, "slowest": 1.0, "fastest": 3.0, "peak_gib": 0.5, "first": 4.0}


@pytest.fixture
def quick(monkeypatch):
    """Steps are not taken; what would have been is kept."""
    asked = []

    def measure(recipes, setting, runs):
        asked.append((pathlib.Path(recipes[0][0]).stem, setting.bindings[-1]))
        _cli.parse(recipes[0], [each for each in setting.bindings if each not in SMALL])  # nothing is missing
        if "mart.gin" in recipes[0][0]:
            raise UserError("expected something else.")
        return [dict(STEP)]

    monkeypatch.setattr(step_speed, "measure", measure)
    monkeypatch.setattr(speed_table, "_attacks", lambda *_: [{"name": "evaluation, pgd-20", "images_per_second": 9.0}])
    monkeypatch.setattr(speed_table, "_input", lambda *_: [{"name": "input", "images_per_second": 9.0}])
    return asked


def test_every_recipe_is_there_what_matters_most_first_in_each_precision(quick):
    found = list(speed_table.rows(GIN, SETTING, 1, minutes=1))
    names = [row["name"] for row in found]
    assert names[:3] == ["at_awp, float32", "at_awp, mixed_bfloat16", "trades_awp, float32"]
    assert quick[1] == ("at_awp", "Recipe.precision='mixed_bfloat16'")
    attacked = {f"{name}{awp}" for name in ("at", "trades", "mart", "rst", "rat") for awp in ("", "_awp")}
    others = {"standard", "sam", "asam", "sam_at", "fast_at", "free_at", "n_fgsm", "laptop", "dm_trades"}
    assert {leaf for leaf, _ in quick} == attacked | others
    assert "evaluation, pgd-20" in names
    assert "input" in names


def test_a_recipe_that_cannot_be_timed_is_said_and_the_others_go_on(quick):
    found = list(speed_table.rows(GIN, SETTING, 1, minutes=1))
    (failed,) = [row for row in found if "error" in row]
    assert failed == {"name": "mart", "error": "expected something else."}
    lines = speed_table.as_table(found).splitlines()
    assert lines[-1] == "mart: expected something else."
    assert lines[2].replace(" ", "") == "|at_awp,float32|2.00|1.00-3.00||0.50|4.0|"


def test_what_there_was_no_time_for_is_named(quick):
    (row,) = speed_table.rows(GIN, SETTING, 1, minutes=0)
    assert not quick
    assert row["error"].startswith("0 minutes are over: at_awp, float32, ")


@pytest.mark.slow
def test_attacks_and_input_are_measured():
    found = [*speed_table._attacks(GIN, SETTING, 1), *speed_table._input(GIN, SETTING, 1)]
    names = [row["name"] for row in found]
    assert names[0] == "evaluation, pgd-20"
    assert names[-2:] == ["input, in memory", "input, image files in place"]
    assert all(row["images_per_second"] > 0 for row in found)
