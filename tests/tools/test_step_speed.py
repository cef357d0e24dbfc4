import numpy as np
import pytest

from awp_tf.infra.errors import UserError
from tools.step_speed import Setting, measure

X, Y = np.full((2, 8, 8, 3), 0.5, np.float32), np.zeros(2, np.int32)
SMALL = ("preact_resnet18.width=2", "training/PGD.steps=2")


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
