import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_batch, tiny_trainer

from awp_tf.infra.apart import Apart
from awp_tf.infra.errors import UserError


def arguments(tmp_path, *bindings):
    np.savez(tmp_path / "batch.npz", x=np.full((2, 8, 8, 3), 0.5, np.float32), y=np.zeros(2, np.int32))
    return json.dumps(["gin/at_awp.gin"]), json.dumps(bindings), str(tmp_path / "batch.npz"), "10", "1"


def test_steps_in_processes_of_their_own_are_traced_once_and_two_devices_share_a_batch_and_its_arithmetic(tmp_path):
    line = arguments(tmp_path, "NETWORK=@small_cnn", "small_cnn.width=2", "training/PGD.steps=1")
    with Apart("tools.recipe_step", *line) as one, Apart("tools.recipe_step", *line[:-1], "2") as two:
        assert one.ready["traces"] == 1
        assert two.ready["operations"] == one.ready["operations"] > 0
        assert 0 < two()["loss"] < 10
        assert len({one()["loss"] for _ in range(3)}) == 3


def test_nothing_of_a_step_leaves_tensorflow():
    graph = tf.function(tiny_trainer().train_step, autograph=False).get_concrete_function(tiny_batch()).graph
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for body in definition.library.function for node in body.node_def)]
    kinds = {node.op for node in nodes}
    assert "Conv2D" in kinds
    assert not [kind for kind in kinds if "PyFunc" in kind or "Print" in kind or kind.startswith(("Host", "Infeed"))]


def test_a_recipe_that_makes_no_sense_is_one_line(tmp_path):
    with pytest.raises(UserError, match="expected one of float32"):
        Apart("tools.recipe_step", *arguments(tmp_path, "Recipe.precision='float8'"))
