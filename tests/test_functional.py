import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf import functional
from awp_tf.functional import Recorder, bind, predictor, read, robust, uses_xla
from awp_tf.networks import preact_resnet18


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return preact_resnet18(width=2, shape=(8, 8, 3), classes=3)


@pytest.fixture
def x(rng):
    return tf.constant(rng.uniform(0, 1, (4, 8, 8, 3)), tf.float32)


def parts(network):
    return read(network.trainable_variables), read(network.non_trainable_variables)


def test_recorder_moves_its_own_statistics_as_the_network_would_its_variables(network, x):
    weights, state = parts(network)
    recorder = Recorder(network, weights, state)
    logits = [recorder(x), recorder(x)]
    for before, after in zip(state, read(network.non_trainable_variables), strict=True):
        np.testing.assert_array_equal(before, after)
    expected = [network(x, training=True) for _ in range(2)]
    np.testing.assert_allclose(logits[1], expected[1], atol=1e-6)
    for recorded, moved in zip(recorder.state, read(network.non_trainable_variables), strict=True):
        np.testing.assert_allclose(recorded, moved, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_bind_changes_nothing(network, x, training):
    weights, state = parts(network)
    predict = bind(network, weights, state, training=training)
    np.testing.assert_array_equal(predict(x), predict(x))
    for before, after in zip(state, read(network.non_trainable_variables), strict=True):
        np.testing.assert_array_equal(before, after)


def test_bind_uses_the_weights_it_was_given(network, x):
    weights, state = parts(network)
    doubled = bind(network, [2 * w for w in weights], state, training=False)(x)
    network.set_weights(
        [2 * w if "moving" not in v.path else w for v, w in zip(network.weights, network.get_weights(), strict=True)]
    )
    np.testing.assert_allclose(doubled, predictor(network)(x), rtol=1e-5)


def test_an_image_is_robust_where_it_is_right_before_and_not_fooled_after():
    logits = {0: [1.0, 0.0], 1: [0.0, 1.0], 2: [float("nan"), 0.0]}  # right, wrong, no answer, for label 0
    predict = lambda x: tf.gather(tf.constant(list(logits.values())), tf.cast(x[:, 0, 0, 0], tf.int32))  # noqa: E731
    before, after = (tf.reshape(tf.constant(places, tf.float32), [-1, 1, 1, 1]) for places in ([0, 0, 0], [0, 1, 2]))
    found = robust(predict, before, after, tf.constant([0, 0, 0]))
    np.testing.assert_array_equal(found, [True, False, True])
    np.testing.assert_array_equal(robust(predict, after, before, tf.constant([0, 0, 0]))[:2], [True, False])


@pytest.mark.parametrize(("gpus", "deterministic", "expected"), [(0, False, False), (1, False, True), (1, True, False)])
def test_xla_is_for_gpus_whose_kernels_need_not_be_deterministic(gpus, deterministic, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(functional, "is_op_determinism_enabled", lambda: deterministic)
    assert uses_xla("auto") is expected
    assert uses_xla(True)
    assert not uses_xla(False)
