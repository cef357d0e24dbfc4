import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import awp_tf.networks
from awp_tf.infra.errors import UserError
from awp_tf.networks import preact_resnet18
from tools import official_autoattack

ROOT = pathlib.Path(__file__).parents[2]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def test_the_pytorch_network_agrees(rng):
    torch = pytest.importorskip("torch", reason="needs the extra torch")
    network = preact_resnet18(shape=(16, 16, 3), classes=7, width=6, mean=MEAN, std=STD)
    for variable in network.weights:  # running statistics too, which start at 0 and 1
        variable.assign(tf.abs(tf.random.stateless_normal(variable.shape, [1, len(variable.shape)])) * 0.3 + 0.05)
    twin = official_autoattack.torch_network(awp_tf.networks.dump_torch_weights(network), MEAN, STD)
    x = rng.random((3, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        logits = twin(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(logits, network(x, training=False), rtol=2e-4)


def test_other_weights_are_refused():
    pytest.importorskip("torch", reason="needs the extra torch")
    with pytest.raises(UserError, match="expected the weights of a preact_resnet18"):
        official_autoattack.torch_network({"fc.weight": np.zeros((3, 3))}, None, None)


def test_the_official_log_is_understood():
    log = "initial accuracy: 60.00%\nrobust accuracy after APGD-CE: 39.50% (total time 6.0 s)\n"
    log += (
        "apgd-t - 1/1 - 7 out of 39 successfully perturbed\nrobust accuracy after APGD-T: 32.00% (total time 36.5 s)\n"
    )
    assert official_autoattack._stages(log) == {"APGD-CE": (0.395, 6.0), "APGD-T": (0.32, 30.5)}


def test_a_row_says_how_much_faster():
    row = official_autoattack.row("fab-t", 0.32, 60.0, 0.31, 90.0)
    assert row == ["fab-t", "32.00 %", "31.00 %", "+1.00", "1m00s", "1m30s", "1.50"]


def test_another_checkout_is_refused(tmp_path):
    with pytest.raises(UserError, match="a checkout of fra31/auto-attack"):
        official_autoattack.Official(str(tmp_path), None, None, None, 1)


def test_the_command_wants_a_checkout_and_leaves_no_file(tmp_path):
    preact_resnet18(shape=(8, 8, 1), classes=10, width=2).save(tmp_path / "net.keras")
    flags = [f"--reference={tmp_path}", f"--network={tmp_path}/net.keras", "--data=digits"]
    line = [sys.executable, "-m", "tools.compare_autoattack", *flags, f"--output={tmp_path}/a.json"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "expected a checkout of fra31/auto-attack" in done.stderr
    assert not (tmp_path / "a.json").exists()
