import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network, tiny_trainer, weights_of

from awp_tf.averaging import EMA, Latest
from awp_tf.infra.errors import UserError
from awp_tf.networks.layers import BatchNorm


def bn_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = BatchNorm(name="bn1")(keras.layers.Conv2D(2, 3, name="conv1")(inputs))
    return keras.Model(inputs, keras.layers.Dense(4, name="linear")(keras.layers.Flatten()(x)))


@pytest.mark.usefixtures("float64")
def test_ema_averages_weights_and_statistics():
    network = bn_network()
    expected = weights_of(network)
    trainer = tiny_trainer(network, averaging=lambda n: EMA(n, 0.5))
    for t, batch in enumerate(tiny_batch(8, "float64", seed) for seed in range(4)):
        trainer.train_step(batch)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights_of(network), strict=True)]
    for average, value in zip(weights_of(trainer.averaged.network), expected, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-12)
    assert len(trainer.optimizer.variables) == 2 + len(network.trainable_variables)


def test_what_is_saved_of_an_average_can_be_trained_on(tmp_path):
    network = tiny_network()
    EMA(network, 0.5).network.save(tmp_path / "a.keras")
    assert len(keras.models.load_model(tmp_path / "a.keras").trainable_variables) == len(network.trainable_variables)


def test_latest_is_the_network_itself():
    network = tiny_network()
    assert Latest(network).network is network


def test_a_decay_of_one_is_refused():
    with pytest.raises(UserError, match=r"EMA\.decay"):
        EMA(tiny_network(), 1.0)


@pytest.mark.usefixtures("float64")
def test_the_average_of_two_replicas_is_that_of_one():
    networks = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()),
    ):
        with strategy.scope():
            trainer = tiny_trainer(tiny_network(), averaging=lambda n: EMA(n, 0.5))
        data = tf.data.Dataset.from_tensor_slices(tiny_batch(32, "float64")).batch(8)
        step = tf.function(lambda batch, s=strategy, t=trainer: s.run(t.train_step, args=(batch,)), autograph=False)
        for batch in strategy.experimental_distribute_dataset(data):
            step(batch)
        networks.append(trainer.averaged.network)
    assert_same_weights(*networks, atol=1e-12)
    with pytest.raises(AssertionError):
        assert_same_weights(networks[0], tiny_network())
