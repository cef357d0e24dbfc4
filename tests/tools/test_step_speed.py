import json

import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from tools.step_speed import Setting, as_table, measure

X, Y = np.full((2, 8, 8, 3), 0.5, np.float32), np.zeros(2, np.int32)
SMALL = ("preact_resnet18.width=2", "training/PGD.steps=2")


@pytest.mark.slow
def test_every_contender_has_its_speed_its_part_of_the_limit_its_memory_and_its_start():
    rows = measure([["gin/at.gin"], ["gin/at_awp.gin"]], Setting(SMALL, X, Y, 10), runs=2)
    assert [row["name"] for row in rows] == ["gin/at.gin", "gin/at_awp.gin"]
    assert rows[0]["times_as_fast"] == 1
    for row in rows:
        assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert 0 < row["of_limit"] < 1
        assert 0.1 < row["peak_gib"] < 8
        assert 0 < row["imported"] < row["made"] < row["traced"] < row["first"]
        assert row["traces"] == 1
        assert json.loads(json.dumps(row)) == row
    assert rows[1]["operations"] > rows[0]["operations"]
    assert as_table(rows).count("\n") == 4


@pytest.mark.parametrize(
    ("leaf", "bindings", "received"),
    [
        ("mart", (), "MART in float32"),
        ("at", ("Recipe.attack_precision='mixed_bfloat16'",), "AT in float32 and mixed_bfloat16"),
    ],
)
def test_a_recipe_that_the_reference_does_not_have_is_refused(leaf, bindings, received, tmp_path):
    with pytest.raises(UserError, match=rf"expected a recipe of AT or TRADES, all in .*, received {received}"):
        measure([[f"gin/{leaf}.gin"]], Setting([*SMALL, *bindings], X, Y, 10), runs=1, reference=str(tmp_path))
