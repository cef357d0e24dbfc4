"""The loop over a split: what is attacked, in which order, what is kept, and that a stop changes nothing."""

import dataclasses
import itertools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from golden import mlp

from awp_tf.attacks import APGD, PGD, LastIterate, Square
from awp_tf.attacks.autoattack import AutoAttack, Cascade
from awp_tf.attacks.search import Found
from awp_tf.data import Split
from awp_tf.evaluation.assessment import Assessment
from awp_tf.evaluation.protocol import Protocol
from awp_tf.evaluation.sanity import verification
from awp_tf.evaluation.state import CLEAN_ERROR, ROBUST, EvaluationState, gaps, result_of, runs_of
from awp_tf.infra.errors import UserError
from awp_tf.networks.classifier import Classifier
from awp_tf.threats import Linf

THREAT = Linf(0.004)
CASCADES = {
    "pgd": Cascade({"pgd": LastIterate(PGD(THREAT, 5), restarts=2)}),
    "short": AutoAttack(THREAT, "custom", ("apgd-ce", "fab-t", "square"), iterations=10, queries=40).cascade(10),
}


@pytest.fixture(scope="module")
def network():
    return mlp(23, 8, 16, 10, 0, "float32")


@pytest.fixture(scope="module")
def split(network):
    labels = network.y.astype(np.int32)
    labels[:3] = (labels[:3] + 1) % 10
    return Split(network.x.numpy(), labels)


def assessment(network, split, folder, cascades=None, **settings):
    on_progress = settings.pop("on_progress", lambda: None)
    classifier = Classifier("mlp", network, (8, 8, 3), 10, "")
    protocol = Protocol(threat=THREAT, **{"batch_size": 8, **settings})
    return Assessment(classifier, split, CASCADES if cascades is None else cascades, protocol, folder, on_progress)


@pytest.fixture(scope="module")
def whole(network, split, tmp_path_factory):
    """An evaluation that nothing interrupted."""
    done = assessment(network, split, tmp_path_factory.mktemp("whole") / "state")
    return done, done.run()


def test_a_cascade_unrolls_into_attacks_targets_and_restarts():
    cascade = Cascade(
        {"a": APGD(Linf(8 / 255), loss="targeted-dlr", targets=2, restarts=2), "b": Square(Linf(8 / 255))}
    )
    expected = [("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("a", 2, 1), ("b", 1, 0)]
    assert [(run.attack, run.target, run.restart) for run in runs_of(cascade)] == expected


def test_clean_errors_are_never_attacked_and_never_robust(whole, split):
    result = result_of(whole[1], split, CASCADES)
    assert (whole[1].fooled_by[:, :3] == CLEAN_ERROR).all()
    assert not result.worst[:3].any()
    assert result.accuracies()["clean"] == pytest.approx(20 / 23)
    assert 0 < result.worst.sum() < 20


def test_each_cascade_meets_all_images_and_the_worst_case_is_theirs_together(whole, split):
    result = result_of(whole[1], split, CASCADES)
    np.testing.assert_array_equal(result.worst, result.robust["pgd"] & result.robust["short"])
    stages = [result.after[f"short/{name}"] for name in ("apgd-ce", "fab-t", "square")]
    for earlier, later in itertools.pairwise(stages):
        assert not (later & ~earlier).any()
    np.testing.assert_array_equal(stages[-1], result.robust["short"])
    assert list(result.accuracies())[:3] == ["clean", "pgd/pgd", "pgd"]


def test_what_was_found_is_in_the_ball_and_fools(whole, network, split):
    done, state = whole
    for index, name in enumerate(CASCADES):
        hit = np.flatnonzero(state.fooled_by[index] >= 0)
        images = done.adversarial(name)[hit]
        assert np.abs(images - split.images[hit]).max() <= THREAT.epsilon * (1 + 1e-5)
        assert (np.argmax(network(tf.constant(images)), 1) != split.labels[hit]).all()
    assert not state.rejected.any()


class Stop(Exception):  # noqa: N818
    """What a signal would raise."""


def test_stopped_again_and_again_it_ends_as_if_it_had_not_been(network, split, whole, tmp_path, monkeypatch):
    saves = {"left": 0}
    save = EvaluationState.save

    def counted(self, path):
        save(self, path)
        saves["left"] -= 1
        if saves["left"] == 0:
            raise Stop

    monkeypatch.setattr(EvaluationState, "save", counted)
    for _ in range(100):
        saves["left"] = 9
        try:
            state = assessment(network, split, tmp_path / "state").run()
            break
        except Stop:
            continue
    np.testing.assert_array_equal(state.fooled_by, whole[1].fooled_by)
    again = assessment(network, split, tmp_path / "state")
    for index, name in enumerate(CASCADES):
        hit = state.fooled_by[index] >= 0
        np.testing.assert_array_equal(again.adversarial(name)[hit], whole[0].adversarial(name)[hit])


def test_a_stop_inside_a_batch_costs_that_batch_only(network, split, whole, tmp_path):
    looks = {"left": 12}

    def look():
        looks["left"] -= 1
        if looks["left"] <= 0:
            raise Stop

    with pytest.raises(Stop):
        assessment(network, split, tmp_path / "state", on_progress=look).run()
    kept = EvaluationState.load(tmp_path / "state" / "state.npz")
    assert (kept.run, kept.position) != (0, 0)
    np.testing.assert_array_equal(assessment(network, split, tmp_path / "state").run().fooled_by, whole[1].fooled_by)


def test_batch_size_and_order_do_not_change_who_falls(network, split, whole, tmp_path):
    backwards = dict(reversed(CASCADES.items()))
    state = assessment(network, split, tmp_path / "state", backwards, batch_size=100).run()
    np.testing.assert_array_equal(state.fooled_by[::-1] == ROBUST, whole[1].fooled_by == ROBUST)


@dataclasses.dataclass(frozen=True)
class Cheat:
    """Claims success with an image that is no adversarial one."""

    shift: float
    targets, restarts, steps, randomised = 0, 1, 1, False

    def begin(self, examples, seeds, restart):
        return Found(tf.zeros_like(examples.labels, tf.bool), examples.x)

    def step(self, predict, examples, state, i, seeds):
        return Found(tf.ones_like(state.fooled), examples.x + self.shift)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0, np.nan], ids=["not fooled", "far", "out of the box", "nan"])
def test_claims_are_verified(network, split, tmp_path, shift):
    state = assessment(network, split, tmp_path / "state", {"cheat": Cascade({"cheat": Cheat(shift)})}).run()
    assert state.rejected.sum() == 20
    assert (state.fooled_by[0, 3:] == ROBUST).all()


@dataclasses.dataclass(frozen=True)
class Nudge(Cheat):
    """Moves the second value of an image by shift, and the first, which is 1, by edge."""

    edge: float

    def step(self, predict, examples, state, i, seeds):
        moved = tf.reshape(tf.constant([self.edge, self.shift] + [0.0] * 190, examples.x.dtype), [1, 8, 8, 3])
        return Found(tf.ones_like(state.fooled), examples.x + moved)


NUDGES = {
    "in the ball and the box": (0.003, 0.0, 0),
    "in the box alone": (0.3, 0.0, 20),
    "in the ball alone": (0.003, 0.003, 20),
}


@pytest.mark.parametrize(("shift", "edge", "rejected"), NUDGES.values(), ids=NUDGES)
def test_ball_and_box_are_each_verified(shift, edge, rejected, tmp_path):
    images = np.full((20, 8, 8, 3), 0.5, np.float32)
    images[:, 0, 0, 0] = 1.0
    fragile = lambda x: tf.one_hot(tf.cast(tf.abs(x[:, 0, 0, 1] - 0.5) > 1e-4, tf.int32), 10)  # noqa: E731
    split, cascades = Split(images, np.zeros(20, np.int32)), {"cheat": Cascade({"cheat": Nudge(shift, edge)})}
    state = assessment(fragile, split, tmp_path / "state", cascades).run()
    assert state.rejected.sum() == rejected
    assert (state.fooled_by[0] == ROBUST).sum() == rejected


class Recorder:
    """Finds nothing, and remembers with which noise each restart began."""

    targets, restarts, steps, randomised = 0, 3, 1, True

    def __init__(self):
        self.seen = []

    def begin(self, examples, seeds, restart):
        tf.py_function(lambda key, number: self.seen.append((*key.numpy(), int(number))), [seeds.key, restart], [])
        return Found(tf.zeros_like(examples.labels, tf.bool), examples.x)

    def step(self, predict, examples, state, i, seeds):
        return state


def test_every_restart_has_its_number_and_noise_of_its_own(network, split, tmp_path):
    recorder = Recorder()
    assessment(network, split, tmp_path / "state", {"it": Cascade({"it": recorder})}, batch_size=32).run()
    seen = set(recorder.seen)  # a batch is searched in shares
    assert sorted(number for *_, number in seen) == [0, 1, 2]
    assert len({tuple(key) for *key, _ in seen}) == 3


def test_what_does_not_stand_goes_on_to_the_next_attack(network, split, tmp_path):
    cascade = Cascade({"cheat": Cheat(0.5), **CASCADES["short"].searches})
    state = assessment(network, split, tmp_path / "state", {"both": cascade}).run()
    alone = assessment(network, split, tmp_path / "alone", {"short": CASCADES["short"]}).run()
    np.testing.assert_array_equal(state.fooled_by == ROBUST, alone.fooled_by == ROBUST)
    assert verification(state, randomised=False).detail.endswith(
        f"{(alone.fooled_by == ROBUST).sum()} others were not, and count as robust"
    )


def test_on_a_randomised_network_luck_is_no_success(network, split, tmp_path):
    def noisy(x):
        logits = network(x)
        return tf.where(tf.random.uniform([len(logits), 1]) < 0.1, tf.random.normal(tf.shape(logits)), logits)

    tiny = AutoAttack(Linf(1e-6), "rand", iterations=20).cascade(10)
    hard = AutoAttack(Linf(0.05), "rand", iterations=20).cascade(10)
    easy = split.take(slice(3, None))
    found = {}
    for name, cascade, threat in (("tiny", tiny, Linf(1e-6)), ("hard", hard, Linf(0.05))):
        classifier = Classifier("noisy", tf.function(noisy), (8, 8, 3), 10, "")
        done = Assessment(classifier, easy, {name: cascade}, Protocol(threat=threat), tmp_path / name)
        state = done.run()
        found[name] = float((state.fooled_by == ROBUST).sum() / max((state.fooled_by != CLEAN_ERROR).sum(), 1))
        assert verification(state, randomised=True).passed
    assert found["tiny"] > 0.5
    assert found["hard"] < 0.2


def test_kept_images_are_clean_where_nothing_was_found(network, split, tmp_path):
    done = assessment(network, split, tmp_path / "state")
    result = result_of(done.run(), split, CASCADES)
    done.keep("short", result.fooled("short"), tmp_path / "kept.npy")
    kept = np.load(tmp_path / "kept.npy")
    changed = np.any(kept != split.images, (1, 2, 3))
    np.testing.assert_array_equal(changed, result.fooled("short"))


def test_logits_that_are_not_finite_are_refused(network, split, tmp_path):
    with pytest.raises(UserError, match="finite logits"):
        assessment(lambda x: network(x) / 0.0, split, tmp_path / "state").run()


def test_a_damaged_state_is_refused(network, split, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.npz").write_bytes(b"half of i")
    with pytest.raises(UserError, match="expected the state of an evaluation"):
        assessment(network, split, tmp_path / "state").run()


def test_no_image_left_and_one_image_left_are_no_special_case(network, split, tmp_path):
    only_errors, one = split.take(slice(0, 3)), split.take(slice(2, 4))
    assert (assessment(network, only_errors, tmp_path / "a").run().fooled_by == CLEAN_ERROR).all()
    assert assessment(network, one, tmp_path / "b").run().fooled_by.shape == (2, 2)


def test_the_gap_is_train_minus_test_under_the_same_attack(whole, split):
    test = result_of(whole[1], split, CASCADES)
    train = dataclasses.replace(test, robust={name: np.ones(23, bool) for name in test.robust})
    assert gaps({"test": test}) == {}
    found = gaps({"test": test, "train": train})
    assert found["clean"] == 0
    assert found["short"] == pytest.approx(1 - test.robust["short"].mean())


def anonymous():
    """Bytes of this process that no file backs."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    shape = (64, 64, 3)
    matrix = tf.random.stateless_normal([int(np.prod(shape)), 5], [1, 2]) * 0.1
    linear = Classifier("linear", lambda x: tf.reshape(x, [-1, matrix.shape[0]]) @ matrix, shape, 5, "")
    protocol = Protocol(threat=Linf(0.0005), batch_size=100)
    cascades = {"a": AutoAttack(protocol.threat, "custom", ("apgd-ce", "fab-t"), iterations=5).cascade(5)}
    growth = []
    for count in (400, 4000):  # 20 and 200 MB of images
        images = np.random.default_rng(0).random((count, *shape), np.float32)
        labels = np.concatenate([np.argmax(linear.predict(images[i : i + 100]), 1) for i in range(0, count, 100)])
        before, most = anonymous(), [0]
        done = Assessment(
            linear,
            Split(images, labels.astype(np.int32)),
            cascades,
            protocol,
            tmp_path / str(count),
            lambda most=most: most.append(anonymous()),
        )
        assert 0 < (done.run().fooled_by >= 0).mean() < 1
        growth.append(max(most) - before)
    assert growth[1] < growth[0] + 40e6


def test_a_disk_without_room_for_the_images_is_an_error_before_they_are_attacked(network, split, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, first, size: taken.append((first, size)))
    assessment(network, split, tmp_path / "a").run()
    size = network.x[0].numpy().nbytes
    assert {each for _, each in taken} == {size}
    assert len({first for first, _ in taken}) == len(split)
    assert {(first - taken[0][0]) % size for first, _ in taken} == {0}

    def full(file, first, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        assessment(network, split, tmp_path / "b").run()
