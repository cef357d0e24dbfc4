"""gamma = 0 is plain fit, bit for bit: weights, metrics, validation, in every way of compiling and feeding."""

import contextlib
import functools

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

import awp_tf
from awp_tf.perturbations import AWP, SAM

DENSE = {"x": keras_models.table(), "y": keras_models.classes()}


def fitted(wrap, make, compiled, data, *, seed=0, strategy=None, **fit):
    keras.utils.set_random_seed(seed)
    with strategy.scope() if strategy else contextlib.nullcontext():
        network = make()
        model = wrap(network)
        settings = {"optimizer": "adamw", **compiled}
        model.compile(**{k: v() if k == "optimizer" and callable(v) else v for k, v in settings.items()})
    history = model.fit(**{"epochs": 2, "batch_size": 8, "verbose": 0, **data, **fit}).history
    return history, network


def assert_same(make, compiled, data, perturbation=AWP(gamma=0.0), **fit):
    plain, plain_network = fitted(lambda network: network, make, compiled, data, **fit)
    ours, network = fitted(lambda network: awp_tf.perturbed(network, perturbation), make, compiled, data, **fit)
    assert list(ours) == list(plain)
    assert ours == plain
    for one, other in zip(network.get_weights(), plain_network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("perturbation", [AWP(gamma=0.0), SAM(rho=0.0)])
def test_two_inputs_two_losses_masks_and_regularisers(perturbation):
    data = {"x": keras_models.both(), "y": keras_models.both_targets()}
    weights = {"kind": np.linspace(0.1, 2, keras_models.ROWS), "size": np.ones(keras_models.ROWS)}
    assert_same(
        keras_models.tables_and_tokens,
        keras_models.TWO_LOSSES,
        data,
        perturbation,
        sample_weight=weights,
        validation_data=(data["x"], data["y"]),
    )


def test_a_subclass_with_nested_inputs_and_losses_and_metrics_of_its_own():
    data = {"x": keras_models.nested(), "y": keras_models.classes()}
    assert_same(keras_models.own, keras_models.cross_entropy(), data)


def test_a_recurrent_network_over_masked_tokens():
    data = {"x": keras_models.tokens(), "y": keras_models.classes()}
    assert_same(keras_models.recurrent, keras_models.cross_entropy(), data)


COMPILED = {
    "eager": {"run_eagerly": True},
    "several steps at once": {"steps_per_execution": 2},
    "xla": {"jit_compile": True},
    "clipped": {"optimizer": lambda: keras.optimizers.AdamW(0.01, global_clipnorm=0.5, weight_decay=0.1)},
    "averaged": {"optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)},
    "accumulated": {"optimizer": lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)},
    "scheduled": {"optimizer": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))},
    "weighted": {"weighted_metrics": ["sparse_categorical_accuracy"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_ways_to_compile(name):
    assert_same(keras_models.dense, {**keras_models.cross_entropy(), **COMPILED[name]}, DENSE)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precisions(policy):
    keras.config.set_dtype_policy(policy)
    assert_same(keras_models.dense, keras_models.cross_entropy(), DENSE)


class Rows(keras.utils.PyDataset):
    """The same rows, batch by batch."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(9 * index, 9 * index + 9)
        return DENSE["x"][part], DENSE["y"][part]


FED = {
    "PyDataset": lambda: {"x": Rows(), "batch_size": None},
    "tf.data": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((DENSE["x"], DENSE["y"])).batch(9),
        "batch_size": None,
        "shuffle": False,
    },
    "a generator": lambda: {
        "x": ((DENSE["x"][:8], DENSE["y"][:8]) for _ in range(10)),
        "batch_size": None,
        "steps_per_epoch": 3,
        "shuffle": False,
    },
    "class weights": lambda: {**DENSE, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
    "validation split": lambda: {**DENSE, "validation_split": 0.25, "validation_freq": 2},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("name", FED)
def test_ways_to_feed(name):
    plain, network = fitted(lambda network: network, keras_models.dense, keras_models.cross_entropy(), FED[name]())
    wrap = lambda network: awp_tf.perturbed(network, AWP(gamma=0.0))  # noqa: E731
    ours, other = fitted(wrap, keras_models.dense, keras_models.cross_entropy(), FED[name]())
    assert ours == plain
    for one, another in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)


def without_statistics():
    return keras.Sequential([keras.Input([6]), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)])


def test_two_replicas_are_those_of_keras():
    two_replicas = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
    assert_same(without_statistics, keras_models.cross_entropy(), DENSE, strategy=two_replicas)


NAMES = (
    *("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Adafactor", "Nadam", "Ftrl", "Lion", "Lamb"),
    *("Muon", "ScheduleFreeAdamW"),
)


def several():
    by_path = keras.optimizers.OptimizerMap(keras.optimizers.Adam(), {"words/.*": keras.optimizers.SGD()})
    return keras.optimizers.MultiOptimizer(lambda variable: by_path[variable.path])


OPTIMIZERS = {
    **{name: functools.partial(getattr(keras.optimizers, name), learning_rate=0.01) for name in NAMES},
    "MultiOptimizer": several,
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
}


def test_the_list_of_optimizers_is_complete():
    known = {
        name
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    assert known - {"Optimizer"} == set(OPTIMIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_keras(name):
    data = {"x": keras_models.both(), "y": keras_models.both_targets()}
    compiled = {**keras_models.TWO_LOSSES, "optimizer": OPTIMIZERS[name]}
    assert_same(keras_models.tables_and_tokens, compiled, data)
