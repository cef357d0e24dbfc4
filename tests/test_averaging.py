import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network, tiny_split, tiny_trainer, weights_of

from awp_tf.averaging import EMA, SWA, Latest
from awp_tf.data import Batches, PadCropFlip
from awp_tf.infra.errors import UserError
from awp_tf.networks.layers import BatchNorm
from awp_tf.recalibration import Recalibration


def bn_network(layer=BatchNorm):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = layer(name="bn1")(keras.layers.Conv2D(2, 3, name="conv1")(inputs))
    return keras.Model(inputs, keras.layers.Dense(4, name="linear")(keras.layers.Flatten()(x)))


def synchronized():
    """Statistics over both replicas: else they train on those of their halves."""
    return bn_network(lambda name: BatchNorm(synchronized=True, name=name))


def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())


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


def test_ema_is_bit_for_bit_what_float32_makes_of_its_formula():
    network = bn_network()
    expected = weights_of(network)
    trainer = tiny_trainer(network, averaging=lambda n: EMA(n, 0.3), steps_per_epoch=3)
    for t in range(3):
        trainer.train_step(tiny_batch(8, seed=t))
        keep = np.float32(min(0.3, (1 + t) / (10 + t)))
        expected = [keep * a + (np.float32(1) - keep) * w for a, w in zip(expected, weights_of(network), strict=True)]
    for average, value in zip(weights_of(trainer.averaged.network), expected, strict=True):
        np.testing.assert_array_equal(average, value)


def swa_run(*, epochs, start, statistics="averaged"):
    """(Trained, the network after each of its epochs, what averages it) after epochs of 2 steps."""
    network, seen = bn_network(), []
    trainer = tiny_trainer(
        network, averaging=lambda n: SWA(n, epochs=epochs, start=start, statistics=statistics), steps_per_epoch=2
    )
    for step in range(2 * epochs):
        trainer.train_step(tiny_batch(8, "float64", step))
        if step % 2:
            seen.append(weights_of(network))
    return trainer, seen


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("epochs", "start", "first"), [(3, 0.0, 0), (3, 1 / 3, 1), (4, 0.6, 3), (3, 2 / 3, 2)])
def test_swa_is_the_mean_of_the_weights_after_each_epoch_from_its_start_on(epochs, start, first):
    trainer, seen = swa_run(epochs=epochs, start=start)
    for average, *values in zip(weights_of(trainer.averaged.network), *seen[first:], strict=True):
        np.testing.assert_allclose(average, np.mean(values, axis=0), rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
def test_before_its_start_swa_is_the_network_as_the_last_epoch_left_it():
    trainer = tiny_trainer(bn_network(), averaging=lambda n: SWA(n, epochs=9), steps_per_epoch=2)
    for step in range(3):
        trainer.train_step(tiny_batch(8, "float64", step))
        if step == 1:
            after_epoch = weights_of(trainer.network)
            trainer.averaged.refresh([tiny_batch(8, "float64")], 1)
    for average, value in zip(weights_of(trainer.averaged.network), after_epoch, strict=True):
        np.testing.assert_array_equal(average, value)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layer", [BatchNorm, keras.layers.BatchNormalization])
def test_recalibrated_statistics_are_those_of_a_pass_by_hand(layer):
    network, split = bn_network(layer), tiny_split(40)
    conv = network.get_layer("conv1")
    batches = Batches(split, 16, dtype="float64")
    Recalibration(network)(batches.dataset(0, 3))
    means, variances, sizes = [], [], []
    for x, _ in batches.dataset(0, 3):
        patches = np.lib.stride_tricks.sliding_window_view(x.numpy()[..., 0], (3, 3), axis=(1, 2))
        values = np.einsum("bhwij,ijc->bhwc", patches, np.asarray(conv.kernel)[:, :, 0]) + np.asarray(conv.bias)
        means.append(values.mean(axis=(0, 1, 2)))
        variances.append(values.var(axis=(0, 1, 2), ddof=int(layer is BatchNorm)))  # Keras' is biased
        sizes.append(len(x))
    bn = network.get_layer("bn1")
    np.testing.assert_allclose(bn.moving_mean, np.average(means, axis=0, weights=sizes), rtol=1e-10)
    np.testing.assert_allclose(bn.moving_variance, np.average(variances, axis=0, weights=sizes), rtol=1e-10)
    assert sizes == [16, 16, 8]
    assert bn.momentum > 0.8


def test_a_pass_changes_statistics_only_and_reads_nothing_where_there_are_none():
    network = bn_network()
    before = weights_of(network)
    Recalibration(network)(Batches(tiny_split(40), 16, PadCropFlip(2)).dataset(0, 3))
    changed = [(a != b).any() for a, b in zip(before, weights_of(network), strict=True)]
    assert [v.path.split("/")[-1] for v, new in zip(network.weights, changed, strict=True) if new] == [
        "moving_mean",
        "moving_variance",
    ]
    Recalibration(tiny_network())(x for x in [None])  # reading it would raise


def test_what_is_saved_of_an_average_can_be_trained_on(tmp_path):
    network = tiny_network()
    EMA(network, 0.5).network.save(tmp_path / "a.keras")
    assert len(keras.models.load_model(tmp_path / "a.keras").trainable_variables) == len(network.trainable_variables)


def test_latest_is_the_network_itself():
    network = tiny_network()
    assert Latest(network).network is network


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda n: EMA(n, 1.0), r"EMA\.decay: expected a number in \[0, 1\), received 1\.0"),
        (lambda n: EMA(n, statistics="none"), r"EMA\.statistics: expected one of averaged, recalibrated, received"),
        (lambda n: SWA(n, epochs=0), r"SWA\.epochs: expected a whole number >= 1"),
        (lambda n: SWA(n, epochs=4, start=-0.1), r"SWA\.start: expected a number in \[0, 1\), received -0\.1"),
        (
            lambda n: SWA(n, epochs=4, start=0.8),
            r"SWA\.start: expected at most 0\.75, when the last of 4 epochs begins",
        ),
        (lambda n: SWA(n, epochs=4, statistics="new"), r"SWA\.statistics: expected one of averaged, recalibrated"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(tiny_network())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "averaging",
    [
        lambda n: EMA(n, 0.5, "recalibrated"),
        pytest.param(lambda n: SWA(n, epochs=2, start=0.0), marks=pytest.mark.slow),
    ],
    ids=["ema", "swa"],
)
def test_the_average_of_two_replicas_is_that_of_one(averaging):
    networks = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            trainer = tiny_trainer(synchronized(), averaging=averaging, steps_per_epoch=2)
            data = tf.data.Dataset.from_tensor_slices(tiny_batch(32, "float64")).batch(8)
            step = tf.function(lambda batch, s=strategy, t=trainer: s.run(t.train_step, args=(batch,)), autograph=False)
            for batch in strategy.experimental_distribute_dataset(data):
                step(batch)
            trainer.averaged.refresh(data, 2)
        networks.append(trainer.averaged.network)
    assert_same_weights(*networks, atol=1e-12)
    with pytest.raises(AssertionError):
        assert_same_weights(networks[0], synchronized())
