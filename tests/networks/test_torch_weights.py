import keras
import numpy as np
import pytest
from helpers import assert_same_weights, weights_of

from awp_tf.infra.errors import UserError
from awp_tf.networks import dump_torch_weights, load_torch_weights, preact_resnet18, wide_resnet

MAKERS = {"preact_resnet18": lambda: preact_resnet18(width=2), "wide_resnet": lambda: wide_resnet(depth=10, width=1)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_load_is_the_inverse_of_dump(make):
    source, target = make(), make()
    load_torch_weights(target, dump_torch_weights(source))
    assert_same_weights(source, target)


def test_names_and_layouts_are_those_of_the_reference():
    state = dump_torch_weights(preact_resnet18(width=2))
    assert state["conv1.weight"].shape == (2, 3, 3, 3)
    assert state["layer2.0.shortcut.0.weight"].shape == (4, 2, 1, 1)
    assert state["linear.weight"].shape == (10, 16)
    assert {f"layer1.0.bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var")} <= set(state)
    wide = dump_torch_weights(wide_resnet(depth=10, width=1))
    assert {"block2.layer.0.convShortcut.weight", "bn1.weight", "fc.bias"} <= set(wide)


def test_prefixes_counters_and_dead_blocks_of_real_checkpoints_are_left_out():
    source, target = MAKERS["wide_resnet"](), MAKERS["wide_resnet"]()
    state = {f"module.{name}": value for name, value in dump_torch_weights(source).items()}
    state["module.bn1.num_batches_tracked"] = np.array(3)
    state["module.sub_block1.layer.0.bn1.weight"] = np.ones(16)
    load_torch_weights(target, state)
    assert_same_weights(source, target)


def missing(state):
    del state["bn.weight"]


def surplus(state):
    state["extra.weight"] = np.ones(3)


def misshapen(state):
    state["linear.weight"] = np.ones((100, 16))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"expected 'bn.weight' in the checkpoint"),
        (surplus, r"holds 'extra.weight', for which the network has no place"),
        (misshapen, r"linear.weight: expected shape \(10, 16\) .* received \(100, 16\)"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(spoil, message):
    network = MAKERS["preact_resnet18"]()
    before, state = weights_of(network), dump_torch_weights(MAKERS["preact_resnet18"]())
    spoil(state)
    with pytest.raises(UserError, match=message):
        load_torch_weights(network, state)
    for old, new in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_network_without_pytorchs_names_is_refused():
    with pytest.raises(UserError, match="expected preact_resnet18 or wide_resnet, whose layers have PyTorch's names"):
        dump_torch_weights(keras.Sequential([keras.Input([4]), keras.layers.Dense(2), keras.layers.PReLU()]))
