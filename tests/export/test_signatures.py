"""What a server is handed: convolutions as such, and never an image that would fill its memory."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from test_export import GOOD, IMAGES, NAMES, bomb, decoy, network

from awp_tf.export.export import export
from awp_tf.export.settings import Export, Servable
from awp_tf.networks import preact_resnet18

LIMITED = """
import pathlib, resource, sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1])
answer = served.signatures["serving_bytes"]
good, bomb = (tf.constant([pathlib.Path(file).read_bytes()]) for file in sys.argv[2:4])
answer(image_bytes=good)
tf.io.decode_png(good[0])
used = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + 40_000_000,) * 2)
try:
    answer(image_bytes=bomb) if sys.argv[4] == "serve" else tf.io.decode_png(bomb[0])
except tf.errors.InvalidArgumentError as error:
    print("refused" if "expected" in str(error) else "failed")
else:
    print("decoded")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory as Linux does")
@pytest.mark.parametrize(
    ("how", "said", "disguise"),
    [
        ("serve", "refused\n", False),
        ("serve", "refused\n", True),
        ("decode", "", False),  # so that the limit is known to be one
    ],
)
def test_a_bomb_is_refused_within_memory_that_would_not_hold_it(how, said, disguise, tmp_path):
    network().save(tmp_path / "net.keras")
    exported = export(Servable("net", tmp_path / "net.keras", IMAGES, NAMES), Export(), str(tmp_path / "serving"))
    (tmp_path / "good.png").write_bytes(GOOD)
    (tmp_path / "bomb.png").write_bytes(decoy(bomb(5000, 5000)) if disguise else bomb(5000, 5000))
    line = [sys.executable, "-c", LIMITED, str(exported), str(tmp_path / "good.png"), str(tmp_path / "bomb.png"), how]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == said  # decoding it takes 75 MB, of which there are 40
    assert (done.returncode == 0) == bool(said)


def test_a_served_network_has_convolutions_whatever_is_fastest_where_it_was_exported(tmp_path):
    network = preact_resnet18(shape=(8, 8, 1), classes=10, width=16)  # 8x8 and 4x4: matrix products in training
    network.save(tmp_path / "net.keras")
    images = np.zeros((2, 8, 8, 1), np.uint8)
    exported = export(Servable("net", tmp_path / "net.keras", images, []), Export(), str(tmp_path / "serving"))
    served = tf.saved_model.load(str(exported)).signatures["serving_default"].graph.as_graph_def()
    nodes = [node.op for body in (served.node, *(f.node_def for f in served.library.function)) for node in body]
    assert nodes.count("Conv2D") == 20
