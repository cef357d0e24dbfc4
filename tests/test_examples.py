"""What Keras hands to a step, and plain Keras around it: weights, metrics, callbacks, bad batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_network, tiny_split, tiny_trainer, weights_of

from awp_tf.attacks import PGD, Clean
from awp_tf.examples import examples, plainly
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT, MART, TRADES, Standard
from awp_tf.optimizers import SGD
from awp_tf.perturbations import Perturbation
from awp_tf.schedules import Warmup
from awp_tf.threats import Linf


def plain(**settings):
    """Standard training, which plain Keras does as well."""
    return tiny_trainer(
        method=Standard(), attack=Clean(), perturbation=settings.pop("perturbation", None) or Still(), **settings
    )


class Still(Perturbation):
    def __call__(self, weights, gradient, seed, start=None):
        return [weights]


def test_labels_of_any_whole_type_and_of_a_column():
    x = np.zeros((3, 8, 8, 1), np.float32)
    for y in (np.array([0, 1, 2], np.uint8), np.array([0, 1, 2]), np.array([[0], [1], [2]], np.int16)):
        batch = examples((tf.constant(x), tf.constant(y)), 4)
        np.testing.assert_array_equal(batch.y, [0, 1, 2])
        assert batch.y.dtype == tf.int32
        np.testing.assert_array_equal(batch.weight, [1, 1, 1])
    batch = examples((tf.constant(x), tf.constant([0, 1, 2]), tf.constant([[1.0], [2.0], [3.0]])), 4)
    np.testing.assert_array_equal(batch.weight, [1, 2, 3])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.full((2, 8, 8, 1), 200.0, np.float32), np.array([0, 1]), r"images: expected pixels in \[0, 1\]"),
        (np.full((2, 8, 8, 1), np.nan, np.float32), np.array([0, 1]), r"images: expected pixels in \[0, 1\]"),
        (np.zeros((2, 8, 8, 1), np.float32), np.array([0, 4]), r"labels: expected 0\.\.3, .* received up to 4"),
        (np.zeros((2, 8, 8, 1), np.float32), np.array([-1, 0]), r"labels: expected 0\.\.3"),
        (np.zeros((2, 8, 8, 1), np.float32), np.array([0.0, 1.0]), r"labels: expected whole numbers"),
        (np.zeros((2, 8, 8, 1), np.float32), np.full((2, 4), 0.3), r"labels: expected probabilities .* add up to 1"),
        (np.zeros((2, 8, 8, 1), np.float32), np.full((2, 3), 1 / 3), r"labels: .* probabilities of 4 classes \[B, 4\]"),
        (np.zeros((2, 8, 8, 1), np.float32), None, r"labels: expected whole numbers \[B\], received none"),
    ],
    ids=["0..255", "nan", "above", "below", "floats", "sums", "classes", "none"],
)
def test_a_batch_that_does_not_fit_is_one_line_and_changes_nothing(x, y, message):
    trainer = plain()
    before = weights_of(trainer.network)
    with pytest.raises(UserError, match=message):
        trainer.train_on_batch(x, y)
    for one, other in zip(before, weights_of(trainer.network), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_keras_loops_say_it_in_one_line_too(method):
    x, y = np.full((2, 8, 8, 1), 200.0, np.float32), np.array([0, 1])
    with pytest.raises(UserError, match=r"images: expected pixels in \[0, 1\]"):
        getattr(plain(), method)(x, y, verbose=0)


def test_what_is_not_about_the_batch_is_left_as_it_is():
    with pytest.raises(tf.errors.InvalidArgumentError), plainly():
        tf.reshape(tf.zeros([3]), [2])


@pytest.mark.usefixtures("float64")
def test_sample_weights_enter_the_loss_as_in_keras():
    split = tiny_split(16)
    x, y, weights = split.images.astype(np.float64), split.labels, np.linspace(0.0, 3.0, 16)
    ours, theirs = tiny_network(), tiny_network()
    trainer = plain(network=ours, weight_decay=0.0, rate=0.1)
    theirs.compile(SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(3):
        loss = trainer.train_on_batch(x, y, weights, return_dict=True)["loss"]
        np.testing.assert_allclose(loss, theirs.evaluate(x, y, 16, 0, weights), rtol=1e-6)
        theirs.train_on_batch(x, y, weights)
    assert_same_weights(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", [AT(), TRADES(), MART(), Standard()], ids=lambda method: type(method).__name__)
def test_labels_may_be_probabilities(method):
    split = tiny_split(16)
    x, y = split.images.astype(np.float64), split.labels
    trained = []
    for labels in (y, np.eye(4)[y], 0.6 * np.eye(4)[y] + 0.1):
        trainer = tiny_trainer(method=method)
        trainer.run_eagerly = not isinstance(method, TRADES)  # Keras hands all of them on alike; tracing takes longest
        trainer.fit(x, labels, batch_size=8, shuffle=False, verbose=0)
        found = trainer.evaluate(x, labels, batch_size=8, verbose=0, return_dict=True)
        trained.append((trainer.network, found["clean_accuracy"]))
    assert_same_weights(trained[0][0], trained[1][0], rtol=1e-9, atol=1e-12)
    assert trained[0][1] == trained[1][1]
    with pytest.raises(AssertionError):
        assert_same_weights(trained[0][0], trained[2][0], atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_smoothed_labels_give_the_loss_of_keras():
    split = tiny_split(16)
    x, smooth = split.images.astype(np.float64), 0.6 * np.eye(4)[split.labels] + 0.1
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True)(smooth, tiny_network()(x))
    ours = plain(network=tiny_network()).train_on_batch(x, smooth, return_dict=True)["loss"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_class_weights_are_the_sample_weights_of_each_class():
    split, of_class = tiny_split(16), {0: 1.0, 1: 0.0, 2: 5.0, 3: 0.5}
    trained = []
    for settings in ({"class_weight": of_class}, {"sample_weight": np.array([of_class[y] for y in split.labels])}):
        trainer = tiny_trainer()
        trainer.fit(split.images, split.labels, batch_size=8, shuffle=False, verbose=0, **settings)
        trained.append(trainer.network)
    unweighted = tiny_trainer()
    unweighted.fit(split.images, split.labels, batch_size=8, shuffle=False, verbose=0)
    assert_same_weights(*trained)
    with pytest.raises(AssertionError):
        assert_same_weights(trained[0], unweighted.network)


def test_weight_zero_is_as_if_the_image_were_not_there_but_for_the_mean():
    split = tiny_split(8)
    weights = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)
    other = split.images.copy()
    other[4:] = 1 - other[4:]
    losses = [tiny_trainer().train_on_batch(x, split.labels, weights) for x in (split.images, other)]
    assert losses[0] == losses[1]


def test_metrics_are_those_of_the_clean_images():
    split = tiny_split(32)
    trainer = tiny_trainer()
    trainer.compile(SGD(0.1), metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    trainer.fit(split.images, split.labels, batch_size=16, epochs=3, verbose=0)
    values = trainer.evaluate(split.images, split.labels, verbose=0, return_dict=True)
    right = np.mean(np.argmax(trainer.network.predict(split.images, verbose=0), -1) == split.labels)
    assert values["accuracy"] == pytest.approx(right)
    assert values["clean_accuracy"] == pytest.approx(right)
    assert values["robust_accuracy"] <= right


def test_model_checkpoint_keeps_networks_that_others_can_load(tmp_path):
    split = tiny_split(32)
    trainer = tiny_trainer()
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    trainer.fit(split.images, split.labels, epochs=2, verbose=0, callbacks=[keep])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.keras", "2.keras"]
    assert_same_weights(keras.models.load_model(tmp_path / "2.keras"), trainer.network)


def test_backup_and_restore_ends_as_an_uninterrupted_fit(tmp_path):
    split = tiny_split(32)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(*callbacks):
        trainer = tiny_trainer()
        trainer.fit(split.images, split.labels, epochs=4, shuffle=False, verbose=0, callbacks=list(callbacks))
        return trainer.network

    whole = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
    assert_same_weights(fit(keras.callbacks.BackupAndRestore(tmp_path / "backup")), whole)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            np.zeros((4, 8, 8, 1), np.uint8),
            np.array([0, 1, 2, 3]),
            "images: expected floats .*, received uint8",
        ),
        (
            np.zeros((4, 8, 8, 1), np.float32),
            np.eye(4, dtype=int),
            "labels: expected one whole number an image",
        ),
    ],
    ids=["uint8", "one-hot"],
)
@pytest.mark.parametrize("method", ["fit", "train_on_batch", "test_on_batch"])
def test_arrays_of_another_kind_are_refused(method, x, y, message):
    with pytest.raises(UserError, match=message):
        getattr(plain(), method)(x, y)


def test_a_scheduled_radius_is_evaluated_at_its_value_now():
    split = tiny_split(40)
    network = tiny_network()
    network.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(split.images, split.labels, batch_size=8, epochs=30, verbose=0)
    growing, fixed = (tiny_trainer(network, attack=PGD(Linf(e), steps=3)) for e in (Warmup(0.3, 2), 0.3))
    for steps in (1, 2):  # epochs of one step
        growing.optimizer.iterations.assign(steps)
        found, then = (t.evaluate(split.images, split.labels, verbose=0, return_dict=True) for t in (growing, fixed))
        assert (found["robust_accuracy"] == found["clean_accuracy"]) == (steps == 1)
    assert found == then


@pytest.mark.parametrize("name", ["weight_decay", "perturb_from"])
def test_what_is_no_number_of_a_part_is_no_schedule(name):
    with pytest.raises(UserError, match=rf"RobustTrainer\.{name}: expected a number that stays as it is"):
        tiny_trainer(**{name: Warmup(0.1, 2)})
