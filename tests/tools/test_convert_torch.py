import pathlib

import keras
import pytest
from helpers import assert_same_weights

from awp_tf.networks import dump_torch_weights, preact_resnet18

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")


@pytest.fixture
def convert(commands):
    def converted(checkpoint, output):
        network = ["--gin_file=gin/at_awp.gin", "--gin_bindings=preact_resnet18.width=2"]
        return commands.run("tools.convert_torch", *network, f"--checkpoint={checkpoint}", f"--output={output}")

    return converted


@pytest.fixture
def checkpoint(tmp_path):
    network = preact_resnet18(width=2, mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616))
    state = {f"module.{name}": torch.tensor(value.copy()) for name, value in dump_torch_weights(network).items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    return network, tmp_path / "model.pth"


def test_a_checkpoint_becomes_a_network_with_its_normalisation(checkpoint, convert, tmp_path):
    network, path = checkpoint
    done = convert(path, tmp_path / "model.keras")
    assert done.returncode == 0, done.stderr
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(network, loaded)
    assert loaded.get_layer("normalize").mean == network.get_layer("normalize").mean


def test_what_cannot_be_converted_is_refused_and_nothing_is_written(checkpoint, convert, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"no")
    torch.save({"evil": pathlib.Path("x")}, tmp_path / "object.pth")
    for file, message in [("bad.pth", "expected a PyTorch file"), ("object.pth", "expected a PyTorch file")]:
        done = convert(tmp_path / file, tmp_path / "out.keras")
        assert done.returncode == 2
        assert message in done.stderr
    assert "ends in .keras" in convert(checkpoint[1], tmp_path / "out.h5").stderr
    assert not list(tmp_path.glob("out*"))
