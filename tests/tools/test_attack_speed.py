import numpy as np
import pytest
from helpers import tiny_network, tiny_split

from awp_tf.threats import Linf
from tools import attack_speed


@pytest.fixture(scope="module")
def rows():
    return attack_speed.measure(tiny_network(), tiny_split(8).images, Linf(0.1), runs=1)


def test_every_attack_has_its_speed(rows):
    assert [row["name"] for row in rows] == ["pgd-20", "apgd-ce", "apgd-t", "fab-t", "square"]
    for row in rows:
        assert 0 < row["images_per_second"] < row["image_steps_per_second"]


def test_the_lengths_are_those_of_the_official_attack(rows):
    lengths = [round(row["image_steps_per_second"] / row["images_per_second"]) for row in rows]
    assert lengths == [20, 101, 9 * 101, 9 * 100, 5001]


def test_nobody_leaves_before_the_end():
    """A network that is fooled at once would make every attack look fast."""
    split, network = tiny_split(8), tiny_network()
    sure = attack_speed._never_fooled(attack_speed.of_keras(network))
    logits = np.asarray(sure.predict(split.images))
    assert (logits.argmax(1) == 0).all()
    assert (logits[:, 0] - logits[:, 1:].max(1) > 1000).all()
