import pathlib
import subprocess
import sys

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_network, tiny_trainer

import awp_tf
from awp_tf.any_model import PerturbedModel
from awp_tf.attacks import FGSM, NFGSM, PGD
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP, RAT, SAM, Identity, RandomPerturbation
from awp_tf.threats import Linf

X, Y = keras_models.table(), keras_models.classes()


def compiled(perturbation=AWP(0.05), make=keras_models.dense, optimizer="adam", seed=0, **settings):
    keras.utils.set_random_seed(seed)
    model = awp_tf.perturbed(make(), perturbation, **settings)
    model.compile(optimizer=optimizer, **keras_models.cross_entropy())
    return model


def without_statistics():
    return keras.Sequential([keras.Input([6]), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)])


def fit(model, x=X, y=Y, **settings):
    return model.fit(x, y, **{"batch_size": 9, "verbose": 0, "shuffle": False, **settings})


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


class Fails(keras.losses.Loss):
    """Raises in one of its calls while a step runs."""

    def __init__(self, call):
        super().__init__()
        self.calls, self.fails_at = 0, call

    def call(self, y_true, y_pred):
        def count(values):
            self.calls += 1
            if self.calls == self.fails_at:
                raise RuntimeError("in the middle of a step")
            return values

        return tf.reduce_mean(tf.square(y_pred)) + tf.ensure_shape(
            tf.numpy_function(count, [tf.zeros([])], tf.float32), []
        )


@pytest.mark.parametrize("call", [1, 2])
def test_a_step_that_raises_leaves_all_weights_untouched(call):
    network = keras_models.dense()
    model = awp_tf.perturbed(network, AWP(0.5))
    model.compile(optimizer="adam", loss=Fails(call))
    before = network.get_weights()
    with pytest.raises(Exception, match="in the middle of a step"):
        fit(model)
    for one, other in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_loss_that_is_not_finite_is_said_before_anything_is_written(eagerly):
    model = awp_tf.perturbed(keras_models.dense(), AWP(0.01))
    model.compile(optimizer="adam", run_eagerly=eagerly, **keras_models.cross_entropy())
    before = weights(model)
    with pytest.raises(UserError, match=r"^loss: expected a finite number, received nan \(look for NaN in inputs"):
        fit(model, np.full_like(X, np.nan))
    np.testing.assert_array_equal(weights(model), before)


def test_under_xla_the_end_of_the_epoch_says_it():
    model = awp_tf.perturbed(keras_models.dense(), AWP(0.01))
    model.compile(optimizer="adam", jit_compile=True, **keras_models.cross_entropy())
    with pytest.raises(UserError, match="loss: expected a finite number, received nan"):
        fit(model, np.full_like(X, np.nan))


def test_one_replica_equals_two(float64):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    attack = PGD(Linf(0.1), steps=2, box=None)
    one = compiled(AWP(0.1), without_statistics, keras.optimizers.SGD(0.1, momentum=0.9), attack=attack)
    single = fit(one, batch_size=12, epochs=2).history
    with strategy.scope():
        two = compiled(AWP(0.1), without_statistics, keras.optimizers.SGD(0.1, momentum=0.9), attack=attack)
    double = fit(two, batch_size=12, epochs=2).history
    np.testing.assert_allclose(weights(one), weights(two), rtol=0, atol=1e-12)
    assert single["loss"] == pytest.approx(double["loss"], rel=1e-12)
    assert single["accuracy"] == double["accuracy"]


def test_a_network_made_under_a_strategy_brings_it_along():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        network = keras_models.dense()
    assert awp_tf.perturbed(network, AWP()).distribute_strategy is strategy


class Overflows(keras.losses.Loss):
    """A gradient beyond float16 at first, as its loss is scaled; the loss itself is finite."""

    def call(self, y_true, y_pred):
        return 100 * tf.reduce_mean(tf.square(tf.cast(y_pred, tf.float16)))


def test_a_gradient_that_overflows_in_float16_skips_the_step_and_harms_nothing():
    keras.config.set_dtype_policy("mixed_float16")
    network = keras_models.dense()
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer=keras.optimizers.SGD(1e-4), loss=Overflows())
    before = [w.numpy() for w in network.trainable_variables]
    model.train_on_batch(X[:9], Y[:9])
    assert model.optimizer.dynamic_scale.numpy() == 2**14  # halved: the step was skipped
    for one, other in zip(network.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    assert all(np.isfinite(w).all() for w in network.get_weights())
    fit(model, epochs=5)
    assert not np.array_equal(network.trainable_variables[0].numpy(), before[0])
    assert all(np.isfinite(w).all() for w in network.get_weights())


def test_callbacks_of_keras(tmp_path):
    model = compiled()
    best, last = tmp_path / "best.keras", tmp_path / "last.weights.h5"
    callbacks = [
        keras.callbacks.ModelCheckpoint(best, save_best_only=True),
        keras.callbacks.ModelCheckpoint(last, save_weights_only=True),
        keras.callbacks.TensorBoard(tmp_path / "tensorboard", histogram_freq=1),
        keras.callbacks.ReduceLROnPlateau(patience=0, min_delta=10),
        keras.callbacks.EarlyStopping(patience=2, min_delta=10, restore_best_weights=True),
    ]
    history = fit(model, epochs=9, validation_data=(X, Y), callbacks=callbacks).history
    assert len(history["loss"]) == 3  # stopped early
    assert float(model.optimizer.learning_rate) < 0.001
    assert list((tmp_path / "tensorboard").rglob("events.*"))
    plain = keras.models.load_model(best)
    assert type(plain) is keras.Sequential
    assert plain.evaluate(X, Y, verbose=0)[0] == pytest.approx(min(history["val_loss"]))
    other = keras_models.dense()
    other.load_weights(last)
    plain.fit(X, Y, verbose=0)  # goes on as an ordinary model


def test_averaged_weights_are_what_is_left_in_the_end():
    model = compiled(optimizer=keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.9))
    fit(model)
    averages = [v for v in model.optimizer.variables if "average" in v.path]
    np.testing.assert_array_equal(model.network.trainable_variables[0], averages[0])


def test_backup_and_restore_goes_on_exactly(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def make(seed=0):
        return compiled(make=without_statistics, start=0.4, seed=seed)  # Keras does not back Dropout's counters up

    whole = make()
    fit(whole, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), epochs=4, callbacks=[keras.callbacks.BackupAndRestore(tmp_path), Stop()])
    resumed = make(seed=1)
    history = fit(resumed, epochs=4, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    assert history.epoch == [2, 3]
    np.testing.assert_array_equal(weights(resumed), weights(whole))


def test_evaluate_and_predict_are_those_of_the_network():
    model = compiled()
    fit(model)
    assert model.evaluate(X, Y, verbose=0) == model.network.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(model.predict(X, verbose=0), model.network.predict(X, verbose=0))
    assert model.test_on_batch(X, Y) == model.network.test_on_batch(X, Y)
    np.testing.assert_array_equal(model(X), model.network(X))


def test_what_is_saved_needs_no_awp_tf(tmp_path):
    model = compiled(SAM(0.05))
    fit(model)
    model.network.save(tmp_path / "network.keras")
    model.save(tmp_path / "same.keras")
    model.export(tmp_path / "exported", verbose=False)
    np.save(tmp_path / "x.npy", X)
    code = """
import sys
sys.modules["awp_tf"] = None  # cannot be imported
import keras, numpy as np, tensorflow as tf
x = np.load("x.npy")
one, two = keras.models.load_model("network.keras"), keras.models.load_model("same.keras")
assert type(one) is keras.Sequential, type(one)
assert one.optimizer.iterations.numpy() == 4
out = one.predict(x, verbose=0)
assert np.array_equal(out, two.predict(x, verbose=0))
exported = tf.saved_model.load("exported")
assert np.allclose(out, exported.serve(x), atol=1e-6)
np.save("out.npy", out)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.predict(X, verbose=0), atol=1e-6)


def test_layers_that_are_frozen_after_a_first_run_stay_and_are_not_perturbed():
    model = compiled()
    fit(model)
    first = model.network.layers[0]
    first.trainable = False
    model.compile(optimizer="adam", **keras_models.cross_entropy())
    kernel = first.kernel.numpy()
    fit(model)
    np.testing.assert_array_equal(first.kernel.numpy(), kernel)


def test_nothing_to_train_is_said():
    network = keras_models.dense()
    model = awp_tf.perturbed(network, AWP())
    network.trainable = False
    with pytest.raises(UserError, match="expected weights to train, received 'seq"):
        model.compile(optimizer="adam", **keras_models.cross_entropy())


def test_statistics_that_would_meet_in_the_loop_of_an_attack_are_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        network = keras.Sequential([keras.Input([6]), keras.layers.BatchNormalization(synchronized=True)])
    awp_tf.perturbed(network, AWP())
    with pytest.raises(UserError, match="attack: expected no synchronized BatchNormalization on several devices"):
        awp_tf.perturbed(network, AWP(), attack=FGSM(Linf(0.1), box=None))


def test_a_network_with_a_part_that_nothing_reaches_is_trained_as_keras_does():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = keras.layers.Dense(3), keras.layers.Dense(2)

        def call(self, x):
            self.idle(x)
            return self.used(x)

    network = Idle()
    network(X[:2])
    model = awp_tf.perturbed(network, AWP(0.1))
    model.compile(optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5), **keras_models.cross_entropy())
    idle = network.idle.kernel.numpy()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        fit(model)
    np.testing.assert_array_equal(network.idle.kernel.numpy(), idle)


def test_random_perturbation_counts_metrics_at_the_perturbed_weights():
    logged = {}
    for perturbation in (Identity(), AWP(0.1), RandomPerturbation(0.1)):
        model = compiled(perturbation, without_statistics)
        logged[type(perturbation)] = model.train_on_batch(X, Y, return_dict=True)["loss"]
    assert logged[AWP] == pytest.approx(logged[Identity], rel=1e-5)
    assert abs(logged[RandomPerturbation] - logged[Identity]) > 1e-3


def test_rat_trains():
    losses = fit(compiled(RAT(0.05, estimator="antithetic")), epochs=3).history["loss"]
    assert losses[-1] < losses[0]


BAD = {
    "not built": (lambda: keras.Sequential([keras.layers.Dense(2)]), {}, "expected one that is built, received 'seq"),
    "no model": (lambda: 3, {}, "expected a keras.Model"),
    "a class": (keras_models.dense, {"perturbation": AWP}, r"perturbation: expected AWP\(...\)"),
    "no weight": (keras_models.dense, {"where": "convolution"}, "where: expected the path of at least one weight to"),
    "no expression": (keras_models.dense, {"where": "("}, "where: expected a regular expression or a function"),
    "a share of 1": (keras_models.dense, {"start": 1.0}, "start: expected a share of the run"),
    "before the run": (keras_models.dense, {"start": -1}, "start: expected a share of the run"),
    "a truth": (keras_models.dense, {"start": True}, "start: expected a share of the run"),
    "another attack": (keras_models.dense, {"attack": NFGSM(Linf(0.1))}, r"attack: expected PGD\(...\) or FGSM"),
    "on nothing": (keras_models.dense, {"on": "table"}, "on: expected an attack, too"),
    "no such input": (
        keras_models.tables_and_tokens,
        {"attack": FGSM(Linf(0.1), box=None), "on": "tabel"},
        "on: expected the name of an input or a layer, one of table, tokens, words, .*; received 'tabel'",
    ),
    "which input": (
        keras_models.tables_and_tokens,
        {"attack": FGSM(Linf(0.1), box=None)},
        "on: expected the name of what is attacked, one of table, tokens",
    ),
    "a seed": (keras_models.dense, {"seed": -1}, "seed: expected a whole number"),
    "kinks": (tiny_network, {"perturbation": RAT(0.1, estimator="hessian")}, "expected smooth layers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name):
    make, settings, message = BAD[name]
    with pytest.raises(UserError, match=message) as error:
        awp_tf.perturbed(make(), **{"perturbation": AWP(), **settings})
    assert "\n" not in str(error.value)


def test_a_model_with_a_train_step_of_its_own_is_refused():
    with pytest.raises(UserError, match="expected Keras' own train_step, received that of RobustTrainer"):
        awp_tf.perturbed(tiny_trainer(), AWP())
    with pytest.raises(UserError, match="received that of PerturbedModel"):
        awp_tf.perturbed(awp_tf.perturbed(keras_models.dense(), AWP()), AWP())


def test_one_import_is_enough():
    assert awp_tf.perturbed(keras_models.dense(), Identity()).__class__ is PerturbedModel
    with pytest.raises(AttributeError, match="no attribute 'perturb'"):
        awp_tf.perturb  # noqa: B018


def test_to_import_the_package_imports_no_tensorflow():
    code = "import sys, awp_tf; assert 'tensorflow' not in sys.modules"
    root = pathlib.Path(awp_tf.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
