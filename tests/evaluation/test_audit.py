"""An evaluation from end to end, and the files it leaves."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import mlp
from helpers import weights_of

from awp_tf.attacks import PGD, LastIterate, Square
from awp_tf.attacks.autoattack import Cascade
from awp_tf.data import Split, ordered
from awp_tf.evaluation import card as card_lib
from awp_tf.evaluation.accuracy import evaluate as measured
from awp_tf.evaluation.audit import audit
from awp_tf.evaluation.card import markdown, worst_class
from awp_tf.evaluation.output import adversarial_file
from awp_tf.evaluation.protocol import Protocol, Subject
from awp_tf.evaluation.sanity import AccuracyCurve
from awp_tf.evaluation.state import SplitResult
from awp_tf.infra.errors import UserError
from awp_tf.networks import small_cnn
from awp_tf.networks.classifier import Classifier, of_keras
from awp_tf.threats import Linf

THREAT = Linf(0.004)
PROTOCOL = Protocol(
    threat=THREAT, attacks=["pgd-5", "apgd-ce+fab-t", Square(THREAT, queries=50)], batch_size=16, check_examples=20
)
FILES = {"evaluation.json", "evaluation.md", "evaluation.npz", "tensorboard", ".lock"} | {
    f"evaluation_{name}.png" for name in ("curve", "classes", "examples")
}
CLASSES = [f"class {k}" for k in range(10)]


@pytest.fixture(scope="module")
def drawn():
    return mlp(80, 8, 16, 10, 0, "float32")


@pytest.fixture(scope="module")
def network(drawn):
    """The golden test network in Keras."""
    shift, flat = keras.layers.Rescaling(1.0, -0.5), keras.layers.Flatten()
    hidden, logits = keras.layers.Dense(16, "tanh"), keras.layers.Dense(10)
    network = keras.Sequential([keras.Input((8, 8, 3)), shift, flat, hidden, logits], name="mlp")
    network.set_weights([w.numpy() for w in drawn.weights])
    return network


@pytest.fixture(scope="module")
def splits(drawn):
    labels = drawn.y.astype(np.int32)
    labels[:3] = (labels[:3] + 1) % 10
    everything = Split(drawn.x.numpy(), labels)
    return {"test": everything.take(slice(40)), "train": everything.take(slice(40, 80))}


@pytest.fixture
def subject(network, splits):
    def make(wrap=lambda predict: predict, *, digest="d", **settings):
        classifier = of_keras(network, digest=digest)
        classifier = dataclasses.replace(classifier, predict=wrap(classifier.predict))
        settings = {"splits": splits, "name": "tiny", "data": "noise", "class_names": CLASSES, **settings}
        return Subject(classifier, **settings)

    return make


@pytest.fixture(scope="module")
def finished(network, splits, tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "out"
    made = Subject(of_keras(network, digest="d"), splits, "tiny", "noise", CLASSES)
    return path, audit(made, PROTOCOL, str(path))


def test_it_writes_what_it_says(finished):
    path, card = finished
    assert {file.name for file in path.iterdir()} == FILES
    assert json.loads((path / "evaluation.json").read_text()) == json.loads(json.dumps(card))
    assert (path / "evaluation.md").read_text() == markdown(card)


def test_the_card_has_robustbenchs_fields_and_the_whole_story(finished, network, splits):
    card = finished[1]
    clean = measured(network, ordered(splits["test"], 40), {})["clean"]
    assert card["clean_acc"] == f"{100 * clean:.2f}" == "92.50"
    assert (card["eps"], card["dataset"], card["architecture"]) == ("0.004", "noise", "mlp")
    assert card["autoattack_acc"] is None  # this protocol is not the standard one
    assert card["trustworthy"]
    assert card["accuracy"]["test"]["worst case"] <= min(card["accuracy"]["test"][name] for name in ("pgd-5", "square"))
    assert card["network"]["sha256"] == "d"
    assert set(card["versions"]) == {"awp_tf", "tensorflow", "keras", "numpy", "python"}


LABELS, PREDICTIONS = np.array([0, 0, 1, 2], np.int32), np.array([0, 1, 1, 2], np.int32)
ROBUST_AFTER = np.array([True, False, False, True])
RESULT = SplitResult(LABELS, PREDICTIONS, {"standard/a": ROBUST_AFTER}, {"standard": ROBUST_AFTER}, {})
NAMED = [  # what else is so; what the card may call AutoAttack's accuracy
    ({}, "50.00"),
    ({"whole": False}, None),
    ({"splits": "train"}, None),
    ({"name": "quick"}, None),
    ({"remarks": ("fewer iterations",)}, None),
]


@pytest.mark.parametrize(("change", "expected"), NAMED, ids=str)
def test_only_the_standard_attack_on_all_test_images_has_robustbenchs_name(change, expected, subject):
    name, splits = change.get("name", "standard"), change.get("splits", "test")
    result = dataclasses.replace(RESULT, robust={name: ROBUST_AFTER}, after={f"{name}/a": ROBUST_AFTER})
    protocol = Protocol(threat=THREAT, attacks="fgsm", splits=splits)
    cascades = {name: Cascade({"a": Square(THREAT)}, remarks=change.get("remarks", ()))}
    curve, print_ = AccuracyCurve(*[[] for _ in AccuracyCurve._fields]), {"protocol": ""}
    whole = change.get("whole", True)
    made = card_lib.make(subject(), protocol, cascades, {splits: result}, [], curve, print_, whole=whole)
    assert made["autoattack_acc"] == expected
    assert made["clean_acc"] == "75.00"


def test_accuracy_by_class_is_clean_and_robust():
    assert RESULT.per_class(4) == {"clean": [0.5, 1.0, 1.0, None], "robust": [0.5, 0.0, 1.0, None]}


def test_the_least_robust_class_is_named():
    card = {"per_class": {"clean": [0.5, None, 0.25, 1.0], "robust": [0.25, None, 0.25, 0.5]}}
    assert worst_class(card) == "Least robust class: 2, 25.00 % clean, 25.00 % robust."
    named = {**card, "class_names": ["ant", "bee", "cat", "dog"]}
    assert worst_class(named) == "Least robust class: cat, 25.00 % clean, 25.00 % robust."


@pytest.mark.parametrize(("examples", "whole"), [(20, False), (40, True), (None, True)])
def test_some_of_the_images_are_not_all_of_them(examples, whole, subject, tmp_path, monkeypatch):
    said, make = [], card_lib.make
    monkeypatch.setattr(card_lib, "make", lambda *given, whole: said.append(whole) or make(*given, whole=whole))
    audit(subject(), Protocol(threat=THREAT, attacks="fgsm", examples=examples, check_examples=5), str(tmp_path / "o"))
    assert said == [whole]


def test_the_arrays_say_who_fell(finished, splits):
    path, card = finished
    with np.load(path / "evaluation.npz") as arrays:
        assert arrays["robust"].mean() == card["accuracy"]["test"]["worst case"]
        assert (arrays["label"] == splits["test"].labels).all()
        right = arrays["clean_prediction"] == arrays["label"]
        assert not (arrays["robust"] & ~right).any()
        first, second = arrays["robust_after/apgd-ce+fab-t/apgd-ce"], arrays["robust_after/apgd-ce+fab-t/fab-t"]
        assert not (second & ~first).any()


def test_the_card_is_for_reading(finished):
    text = markdown(finished[1])
    verdict = "All checks passed. Without AutoAttack"
    for part in (verdict, "apgd-ce+fab-t: after fab-t", "a choice of attacks", "worst case", "epsilon 0.004"):
        assert part in text


def test_tensorboard_gets_the_same(finished):
    path, card = finished
    (file,) = (path / "tensorboard").glob("events*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value}
    assert {f"evaluation/test/{name}" for name in card["accuracy"]["test"]} <= tags
    assert {"evaluation/card", "evaluation/curve", "evaluation/classes", "evaluation/examples"} <= tags


def test_the_same_seed_gives_the_same_files_but_for_times(network, subject, finished, tmp_path):
    before = weights_of(network)
    again = audit(subject(), PROTOCOL, str(tmp_path / "out"))
    for name in ("evaluation.npz", "evaluation_curve.png", "evaluation_classes.png", "evaluation_examples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (finished[0] / name).read_bytes()
    assert {**again, "seconds": 0} == {**finished[1], "seconds": 0}
    for old, new in zip(before, weights_of(network), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_finished_evaluation_is_left_alone(subject, finished, capsys):
    path, card = finished
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert audit(subject(), PROTOCOL, str(path)) == json.loads(json.dumps(card))
    assert "nothing to do" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in path.iterdir()}


def test_a_finished_evaluation_is_left_alone_on_another_machine_too(subject, finished, monkeypatch):
    path, card = finished
    monkeypatch.setattr("awp_tf.infra.cpu.cores", lambda: [0, 1, 2])
    assert PROTOCOL.shares(250) != 8
    assert audit(subject(), PROTOCOL, str(path)) == json.loads(json.dumps(card))


class Stop(Exception):  # noqa: N818
    """What a signal would raise."""


@pytest.mark.slow
def test_interrupted_it_goes_on_and_ends_the_same(subject, finished, tmp_path, monkeypatch):
    path, left = tmp_path / "out", {"looks": 6}

    def stop(self):
        left["looks"] -= 1
        if left["looks"] < 0:
            left["looks"] = 70
            raise Stop

    monkeypatch.setattr("awp_tf.infra.signals.Interrupt.check", stop)
    stops = 0
    while True:
        try:
            card = audit(subject(), PROTOCOL, str(path))
            break
        except Stop:
            stops += 1
            assert not (path / "evaluation.json").exists()
    assert stops >= 2
    assert {**card, "seconds": 0} == {**finished[1], "seconds": 0}
    assert (path / "evaluation.npz").read_bytes() == (finished[0] / "evaluation.npz").read_bytes()
    assert {file.name for file in path.iterdir()} == FILES


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("what", ["network", "data", "protocol"])
def test_another_evaluations_folder_is_refused(what, done, subject, splits, finished, tmp_path, monkeypatch):
    path = finished[0]
    if not done:
        path = tmp_path / "out"
        monkeypatch.setattr("awp_tf.infra.signals.Interrupt.check", lambda self: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            audit(subject(), PROTOCOL, str(path))
    mine = {
        "network": lambda: subject(digest="another"),
        "data": lambda: subject(splits={"test": splits["train"]}),
        "protocol": subject,
    }[what]()
    protocol = dataclasses.replace(PROTOCOL, seed=int(what == "protocol"))
    with pytest.raises(UserError, match=f"another {what}"):
        audit(mine, protocol, str(path))


def test_an_evaluation_of_fewer_images_is_told_from_one_of_other_data(subject, finished):
    fewer = dataclasses.replace(PROTOCOL, examples=7)
    with pytest.raises(UserError, match=r"another data \(there: \d+ test images, .*; here: 7 test images, "):
        audit(subject(), fewer, str(finished[0]))


def test_a_foreign_folder_is_refused_and_left_alone(subject, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        audit(subject(), PROTOCOL, str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_both_splits_give_the_gap(subject, tmp_path):
    protocol = Protocol(threat=THREAT, attacks="fgsm,pgd-5", splits="both", examples=20, check_examples=10)
    card = audit(subject(), protocol, str(tmp_path / "out"), save_adversarial=True)
    assert card["images"] == {"test": 20, "train": 20}
    assert "LastIterate(attack=FGSM(" in card["fingerprint"]["protocol"]
    train, test = (card["accuracy"][part]["pgd-5"] for part in ("train", "test"))
    assert card["robust_gap"]["pgd-5"] == pytest.approx(train - test)
    with np.load(tmp_path / "out" / "evaluation.npz") as arrays:
        assert arrays["train/robust"].shape == (20,)
    kept = np.load(tmp_path / "out" / "adversarial_train_pgd-5.npy")
    assert kept.shape == (20, 8, 8, 3)
    assert (tmp_path / "out" / adversarial_file("fgsm")).exists()


# Cheapest attack that is enough: saturation leaves the cross-entropy no gradient.
ATTACKS = {"saturated": "pgd-20"}
BROKEN = {  # others: test_sanity.py
    "saturated": lambda predict: lambda x: 1e4 * predict(x),
    "masked": lambda predict: lambda x: predict(tf.stop_gradient(x)) + 1e-9 * tf.reduce_sum(x),
}


@pytest.mark.parametrize("defence", BROKEN)
def test_a_broken_defence_is_never_called_robust(defence, subject, tmp_path, capsys):
    attacks = ATTACKS.get(defence, "apgd-ce+square")
    protocol = Protocol(threat=THREAT, attacks=attacks, examples=20, check_examples=20)
    card = audit(subject(BROKEN[defence]), protocol, str(tmp_path / "out"))
    assert not card["trustworthy"]
    assert "Not to be trusted" in (tmp_path / "out" / "evaluation.md").read_text()
    assert ("warning: " in capsys.readouterr().out) == (defence != "saturated")


@pytest.mark.slow
def test_a_saturated_defence_is_broken_by_the_ensemble(subject, tmp_path):
    protocol = Protocol(threat=THREAT, attacks="apgd-ce+apgd-t", examples=20, check_examples=20)
    plain, saturated = (
        audit(subject(wrap), protocol, str(tmp_path / str(i)))["accuracy"]["test"]["worst case"]
        for i, wrap in enumerate([lambda predict: predict, BROKEN["saturated"]])
    )
    assert saturated <= plain + 0.051


def test_adversarial_images_are_not_promised_after_the_fact(subject, finished):
    with pytest.raises(UserError, match="finished without its adversarial images"):
        audit(subject(), PROTOCOL, str(finished[0]), save_adversarial=True)


TALL = Split(np.zeros((4, 9, 8, 3), np.float32), np.arange(4))
ELEVENTH = Split(np.zeros((4, 8, 8, 3), np.float32), np.arange(4) + 7)
MISFITS = [
    ({"splits": {"test": TALL}}, "expected images"),
    ({"class_names": list("abc")}, "expected 10 classes, received 3"),
    ({"class_names": (), "splits": {"test": ELEVENTH}}, "received 11"),
]


@pytest.mark.parametrize(("settings", "message"), MISFITS)
def test_what_does_not_fit_the_network_is_refused(subject, settings, message):
    with pytest.raises(UserError, match=message):
        subject(**settings)


def test_a_network_for_other_images_cannot_be_transferred_from(subject):
    for shape, classes in (((16, 16, 1), 10), ((8, 8, 3), 4)):
        with pytest.raises(UserError, match="to transfer from"):
            subject(transfer=of_keras(small_cnn(shape=shape, classes=classes)))


def test_transfer_from_another_network(subject, tmp_path):
    protocol = Protocol(threat=Linf(0.02), attacks=["transfer", LastIterate(PGD(Linf(0.02), 20))], check_examples=10)
    other = Classifier("other", mlp(1, 8, 16, 10, 1, "float32"), (8, 8, 3), 10, "o")
    accuracy = audit(subject(transfer=other), protocol, str(tmp_path / "out"))["accuracy"]["test"]
    assert accuracy["lastiterate"] < accuracy["transfer"] <= accuracy["clean"]
