import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_split, tiny_trainer

from awp_tf.attacks import PGD, Clean
from awp_tf.continual.basis import Basis, NoBasis
from awp_tf.continual.importance import Importance, SoftWeights
from awp_tf.continual.settings import Learner
from awp_tf.continual.trainer import ContinualTrainer
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT, Standard
from awp_tf.networks import lenet
from awp_tf.perturbations import AWP, FS, Identity, LookAhead
from awp_tf.schedules import Linear
from awp_tf.soft_labels import SoftLabelTRADES
from awp_tf.threats import Linf

OPEN = np.ones([12, CLASSES], bool)


def smooth(seed=0, classes=CLASSES):
    """Without biases, and smooth, so that finite differences see what derivatives say."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(3, 3, use_bias=False, activation="tanh", name="conv")(inputs)
    x = keras.layers.Dense(5, use_bias=False, activation="tanh", name="dense")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(classes, use_bias=False, name="logits")(x), name="smooth")


def learner(**settings):
    return Learner(**{"network": smooth, "method": Standard(), "attack": Clean(), "limit": 1e6, **settings})


def trained(settings, network=None, *, multi_head=False, with_bases=True):
    """A trainer with bases of some images."""
    trainer = ContinualTrainer(network or smooth(), settings, multi_head=multi_head)
    if with_bases and trainer.bases.layers:
        trainer.bases.extend(tiny_split(6, seed=5).images, 0.9, anew=True)
    return trainer


def data(dtype="float32", scale=1.0, current=8, open_classes=OPEN):
    x, y = tiny_batch(12, dtype)
    return x, y, tf.constant(open_classes), tf.constant(current), tf.constant(scale)


def span_loss(trainer, raw, batch):
    """The loss at the perturbed weights as a function of the raw importance: what its gradient is of."""
    for variable, value in zip(trainer.importance.raw, raw, strict=True):
        variable.assign(value)
    before = trainer.network.get_weights()
    loss = float(trainer.train_step(batch)["loss"])
    trainer.network.set_weights(before)
    trainer.optimizer.iterations.assign(0)
    trainer.optimizer.forget()
    return loss


def gradient_of_importance(trainer, batch):
    found = {}
    original = trainer.importance.step
    trainer.importance.step = lambda gradients, scale: found.update(gradients=[g.numpy() for g in gradients])
    before = trainer.network.get_weights()
    trainer.train_step(batch)
    trainer.network.set_weights(before)
    trainer.optimizer.iterations.assign(0)
    trainer.optimizer.forget()
    trainer.importance.step = original
    return found["gradients"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rule", ["clip", "sigmoid"])
@pytest.mark.parametrize("perturbation", [FS(1, 0.3), FS(2, 0.3), LookAhead(2, 0.3)], ids=str)
def test_gradients_of_the_importance_equal_finite_differences(rule, perturbation):
    importance = Importance(rule, temperature=1.5, start=0.3)
    settings = learner(perturbation=perturbation, basis=Basis(), memory=12, importance=importance)
    trainer, batch = trained(settings), data("float64")
    trainer.importance.step = lambda gradients, scale: None
    # With one chained step first-order derivatives are exact; with two they are not in the weights, but they leave out
    # how the second gradient moves, so there only second order equals differences.
    if perturbation.steps == 2:
        trainer = trained(learner(**{**vars(settings), "second_order": True}))
        trainer.importance.step = lambda gradients, scale: None
    raw = [np.full(value.shape, 0.6) for value in trainer.importance.raw]
    span_loss(trainer, raw, batch)
    analytic = gradient_of_importance(trainer, batch)
    for layer, place in itertools.product(range(3), range(2)):
        plus, minus = ([r.copy() for r in raw] for _ in range(2))
        plus[layer][place] += 1e-5
        minus[layer][place] -= 1e-5
        difference = (span_loss(trainer, plus, batch) - span_loss(trainer, minus, batch)) / 2e-5
        span_loss(trainer, raw, batch)
        assert abs(difference) > 1e-5 or layer == 2
        assert analytic[layer][place] == pytest.approx(difference, rel=1e-4, abs=1e-8)


@pytest.mark.usefixtures("float64")
def test_second_order_descends_along_the_gradient_of_the_loss_at_the_moved_weights():
    settings = learner(perturbation=FS(2, 0.2), second_order=True, momentum=0.0, learning_rate=1.0)
    trainer, batch = trained(settings, with_bases=False), data("float64")
    before = trainer.network.get_weights()
    trainer.train_step(batch)
    gradient = before[0] - trainer.network.get_weights()[0]
    for place in [(0, 0, 0, 0), (1, 2, 0, 2)]:
        losses = []
        for shift in (1e-5, -1e-5):
            moved = [w.copy() for w in before]
            moved[0][place] += shift
            trainer.network.set_weights(moved)
            trainer.optimizer.iterations.assign(0)
            losses.append(float(trainer.train_step(batch)["loss"]))
        assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


@pytest.mark.usefixtures("float64")
def test_without_anything_of_its_own_it_is_the_ordinary_step():
    """Experience replay is SGD on a joint batch."""
    x, y, *_ = batch = data("float64")
    trainer = trained(learner(learning_rate=0.1))
    trainer.train_step(batch)
    settings = {"method": Standard(), "attack": Clean(), "perturbation": Identity(), "weight_decay": 0.0}
    plain = tiny_trainer(smooth(), rate=0.1, **settings)
    plain.train_step((x, y))
    assert_same_weights(trainer.network, plain.network, rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("scale", "limit"), [(1.0, 1e6), (0.5, 1e6), (1.0, 0.01)])
def test_a_point_is_one_plain_gradient_step_away_on_images_of_the_task_alone(scale, limit):
    """One step of FS, first order: the gradient at w + eta g, g of the first `current` images.

    The step has the scale of the learning rate; numbers of g, and the length of what is descended along, are limited.
    """
    x, y, *_ = batch = data("float64", scale=scale, current=8)
    settings = learner(perturbation=FS(1, 0.1), learning_rate=1.0, momentum=0.0, limit=limit)
    trainer = trained(settings, with_bases=False)
    network = smooth()

    def gradient(images, labels):
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(labels, network(images), from_logits=True)
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, [v.value for v in network.trainable_variables])

    start = network.get_weights()
    moves = [0.1 * scale * np.clip(g, -limit, limit) for g in gradient(x[:8], y[:8])]
    network.set_weights([w + move for w, move in zip(start, moves, strict=True)])
    found, length = tf.clip_by_global_norm(gradient(x, y), limit)
    expected = [w - g.numpy() for w, g in zip(start, found, strict=True)]
    assert (length > limit) == (limit == 0.01)
    trainer.train_step(batch)
    for found, value in zip(trainer.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-9)


@pytest.mark.parametrize("current", [1, 2, 3])
def test_the_last_batch_may_be_smaller_than_the_parts_of_the_search(current):
    """BatchNorm fails on a part without images."""
    network = lenet(shape=SHAPE, classes=CLASSES, width=2)
    trainer = trained(learner(perturbation=FS(3, 0.1)), network)
    assert np.isfinite(float(trainer.train_step(data(current=current))["loss"]))


def test_closed_classes_have_no_part():
    """Heads: neither weights of other tasks' logits nor their probabilities play a part."""
    closed = np.array([[True, True, False, False]] * 12)
    x, _, *_ = data()
    batch = (x, tf.constant([0, 1] * 6), tf.constant(closed), tf.constant(12), tf.constant(1.0))
    trainer = trained(learner(learning_rate=0.1, perturbation=FS(2, 0.1)))
    before = trainer.network.get_weights()[-1]
    loss = trainer.train_step(batch)["loss"]
    after = trainer.network.get_weights()[-1]
    np.testing.assert_array_equal(before[:, 2:], after[:, 2:])
    assert np.abs(before - after)[:, :2].min() > 0
    assert 0 < float(loss) < 2


def test_learned_importance_changes_and_the_released_one_does_not():
    moved = {}
    for rule in ("one", "frozen", "clip", "sigmoid"):
        settings = learner(perturbation=FS(2, 0.3), basis=Basis(), memory=12, importance=Importance(rule, rate=1.0))
        trainer = trained(settings)
        before = [value.numpy() for value in trainer.importance.values()]
        for _ in range(3):
            trainer.train_step(data())
        pairs = zip(before, trainer.importance.values(), strict=True)
        moved[rule] = max(float(np.abs(now - value).max()) for value, now in pairs)
        assert all(0 <= value.numpy().min() <= value.numpy().max() <= 1 for value in trainer.importance.values())
    assert moved["one"] == moved["frozen"] == 0
    assert moved["clip"] > 1e-4
    assert 0 < moved["sigmoid"] < moved["clip"]  # its sigmoid is saturated where it starts


def test_importance_goes_down_or_up_the_loss_and_begins_anew():
    down, up = (SoftWeights(Importance("clip", rate=0.1, ascend=ascend), [2]) for ascend in (False, True))
    for weights in (down, up):
        weights.raw[0].assign([0.5, 0.5])
        weights.step([tf.constant([1.0, -1.0])], tf.constant(1.0))
    np.testing.assert_allclose(down.raw[0], [0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(up.raw[0], [0.6, 0.4], rtol=1e-6)
    down.begin()
    np.testing.assert_array_equal(down.raw[0], [1.0, 1.0])


def test_a_step_with_full_importance_stays_out_of_the_bases():
    trainer = trained(learner(perturbation=FS(2, 0.1), basis=Basis(), memory=12))
    before = trainer.network.get_weights()
    for _ in range(2):
        trainer.train_step(data())
    for place, u in zip(trainer.bases.places, trainer.bases.values, strict=True):
        change = (trainer.network.get_weights()[place] - before[place]).reshape(u.shape[0], -1)
        assert np.abs(u.numpy().T @ change).max() < 1e-6
        assert np.abs(change).max() > 1e-4


def test_plain_descent_is_at_the_weights_themselves():
    """DGPM: what is looked for at the perturbed weights teaches the importance alone."""
    settings = {"basis": Basis(), "memory": 12, "importance": Importance("one"), "plain_descent": True}
    near, far = (trained(learner(perturbation=FS(2, size), **settings)) for size in (0.0, 0.5))
    for trainer in (near, far):
        trainer.train_step(data())
    assert_same_weights(near.network, far.network)


def test_frozen_vectors_move_in_the_first_task_only():
    network = tiny_network()
    trainer = trained(learner(basis=Basis(), memory=12, freeze_norm=True), network, with_bases=False)
    biases = [i for i, v in enumerate(network.trainable_variables) if len(v.shape) == 1]
    start = network.get_weights()
    trainer.train_step(data())
    first = network.get_weights()
    trainer.bases.extend(tiny_split(6).images, 0.5, anew=True)
    trainer.begin_task()
    trainer.train_step(data())
    assert all(np.abs(first[i] - start[i]).max() > 0 for i in biases)
    assert all(np.array_equal(network.get_weights()[i], first[i]) for i in biases)


@pytest.mark.parametrize("perturbation", [AWP(0.01, steps=3), FS(3, 0.1), Identity()], ids=str)
def test_any_perturbation_and_attack_fit(perturbation):
    attack = PGD(Linf(0.1), steps=2, relative_step_size=0.5)
    settings = learner(method=AT(), attack=attack, perturbation=perturbation, basis=Basis(), memory=12)
    trainer = trained(settings, tiny_network())
    step = tf.function(trainer.train_step, autograph=False)
    losses = [float(step(data(current=5))["loss"]) for _ in range(8)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_a_smaller_scale_and_a_new_task_forget_momentum():
    trainer = trained(learner(learning_rate=0.1))
    trainer.train_step(data())
    trainer.slow_down(0.5)
    assert float(trainer.optimizer.learning_rate) == pytest.approx(0.05)
    assert all(not np.any(v.numpy()) for v in trainer.optimizer._velocities)
    trainer.begin_task()
    assert float(trainer.optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"basis": Basis()}, r"Learner\.memory: expected images for the bases"),
        ({"search_on": "memory"}, r"Learner\.search_on: expected one of task, both"),
        ({"glances": 0}, r"Learner\.glances: expected a whole number >= 1"),
        ({"perturbation": FS}, r"Learner\.perturbation: expected an object such as @FS\(\), received FS without"),
        ({"perturbation": FS(2, Linear(0.1, 9))}, r"Learner\.perturbation: expected numbers that stay.*schedule"),
        ({"basis": None}, r"Learner\.basis: expected an object such as @Basis\(\), received None"),
        ({"method": SoftLabelTRADES()}, r"Learner\.method: expected one that needs logits alone"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        learner(**settings)
    assert learner(basis=NoBasis()).memory == 0


def test_importance_begins_anew_with_each_task():
    trainer = trained(learner(basis=Basis(), memory=12, importance=Importance("clip")))
    for raw in trainer.importance.raw:
        raw.assign(tf.fill(raw.shape, 0.25))
    trainer.begin_task()
    for value in trainer.importance.values():
        np.testing.assert_array_equal(value, 1.0)
