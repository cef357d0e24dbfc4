import numpy as np
from helpers import tiny_network, tiny_split

from awp_tf.threats import Linf
from tools import attack_speed


def test_the_lengths_are_those_of_the_official_attack():
    parts = attack_speed._attacks(Linf(0.1))
    lengths = {"pgd-20": 20, "apgd-ce": 101, "apgd-t": 9 * 101, "fab-t": 9 * 100, "square": 5001}
    assert {name: part.steps for name, part in parts.items()} == lengths
    assert all(part.search.steps == part.timed for name, part in parts.items() if name != "pgd-20")


def test_an_attack_has_its_speed(monkeypatch):
    parts = attack_speed._attacks(Linf(0.1))
    monkeypatch.setattr(attack_speed, "_attacks", lambda threat: {"pgd-20": parts["pgd-20"]})
    (row,) = attack_speed.measure(tiny_network(), tiny_split(8).images, Linf(0.1), runs=1)
    assert row["name"] == "pgd-20"
    assert 0 < row["images_per_second"] < row["image_steps_per_second"]


def test_nobody_leaves_before_the_end():
    """A network that is fooled at once would make every attack look fast."""
    split, network = tiny_split(8), tiny_network()
    sure = attack_speed._never_fooled(attack_speed.of_keras(network))
    logits = np.asarray(sure.predict(split.images))
    assert (logits.argmax(1) == 0).all()
    assert (logits[:, 0] - logits[:, 1:].max(1) > 1000).all()
