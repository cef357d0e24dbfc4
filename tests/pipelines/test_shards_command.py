"""pipelines.evaluate by several processes that share a folder, as on a cluster."""

import json
import signal

import keras
import pytest

from awp_tf.data import digits
from awp_tf.networks import small_cnn

FILES = ["evaluation.npz", *(f"evaluation_{name}.png" for name in ("curve", "classes", "examples"))]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A small CNN that knows digits."""
    keras.utils.set_random_seed(0)
    network, train = small_cnn(shape=(8, 8, 1), classes=10, width=8), digits().train
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(train.images, train.labels, epochs=5, verbose=0)
    path = tmp_path_factory.mktemp("network") / "cnn.keras"
    network.save(path)
    return path


@pytest.fixture
def started(network, commands):
    def start(out, *flags):
        given = [f"--network={network}", "--data=digits", f"--output={out}", "--threat=linf:0.1", "--max_examples=60"]
        return commands.start("pipelines.evaluate", *given, "--check_examples=20", "--batch_size=16", *flags)

    return start


def finished(process, code=0):
    done = process.end()
    assert done.returncode == code, done
    return done.stdout + done.stderr


def test_three_shards_one_of_them_killed_write_what_one_process_writes(started, tmp_path):
    attacks = "--attacks=apgd-ce+square"
    finished(started(tmp_path / "whole", attacks))
    out = tmp_path / "out"
    two, three = (started(out, attacks, f"--shard={number}/3") for number in (2, 3))
    two.until((out / "state" / "shard-2" / "test" / "state.npz").exists)
    two.send_signal(signal.SIGKILL)
    finished(two, -signal.SIGKILL)
    finished(three)
    one, two = (started(out, attacks, f"--shard={number}/3") for number in (1, 2))
    printed = finished(one) + finished(two)
    assert printed.count("The last one writes the card.") == 1
    assert printed.count("worst case") == 1
    for file in FILES:
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    cards = [json.loads((path / "evaluation.json").read_text()) for path in (tmp_path / "whole", out)]
    assert {**cards[0], "seconds": 0} == {**cards[1], "seconds": 0}
    assert 0 < cards[0]["accuracy"]["test"]["worst case"] < 1
    assert {file.name for file in out.iterdir()} == {file.name for file in (tmp_path / "whole").iterdir()}
