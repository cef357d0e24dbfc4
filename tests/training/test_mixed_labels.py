"""Mixed labels and averages through a whole run: the loss is that of the labels, and a resumed run the same run."""

import signal

import keras
import numpy as np
import pytest
from helpers import CLASSES, assert_same_weights, tiny_network, tiny_split, tiny_trainer, weights_of

from awp_tf.attacks import Clean
from awp_tf.averaging import EMA, SWA, Latest
from awp_tf.data import Batches, CutMix, MixChain, MixUp, PadCropFlip, SmoothLabels
from awp_tf.infra.signals import Interrupted
from awp_tf.methods import AT, TRADES
from awp_tf.networks.layers import BatchNorm
from awp_tf.perturbations import Identity
from awp_tf.training.loop import Loop

MIX = MixChain([MixUp(), SmoothLabels(0.1)])


def batches(mix, dtype="float64"):
    return Batches(tiny_split(40), 16, PadCropFlip(2), dtype=dtype, mix=mix, classes=CLASSES)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mix", [SmoothLabels(), CutMix(), MIX], ids=repr)
@pytest.mark.parametrize("method", [AT(), TRADES()], ids=repr)
def test_a_step_on_mixed_labels_minimises_their_cross_entropy(method, mix):
    network = tiny_network()
    trainer = tiny_trainer(network, method=method, attack=Clean(), perturbation=Identity())
    x, y = next(iter(batches(mix).dataset(0, 1)))
    logits = np.asarray(network(x))  # without an attack TRADES has nothing to add
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = float(trainer.train_step((x, y))["loss"])
    assert loss == pytest.approx(-(y.numpy() * log_p).sum(axis=1).mean(), rel=1e-12)


@pytest.mark.parametrize("method", [AT(), TRADES()], ids=repr)
def test_an_attacked_and_perturbed_step_on_mixed_labels_is_finite(method):
    trainer = tiny_trainer(method=method)
    for batch in batches(MIX, "float32").dataset(0, 3):
        assert np.isfinite([float(value) for value in trainer.train_step(batch).values()]).all()


def bn_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = BatchNorm(name="bn1")(keras.layers.Conv2D(2, 3, name="conv1")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="linear")(keras.layers.Flatten()(x)))


def run(folder, averaging, *, stop_in=None, seen=None):
    """Three epochs of three steps; SIGTERM's way out while epoch `stop_in` is measured."""
    trainer = tiny_trainer(bn_network(), averaging=averaging, steps_per_epoch=3, rate=0.05)

    def validate(on_batch):
        if loop.progress.epoch + 1 == stop_in:
            raise Interrupted(signal.SIGTERM)
        if seen is not None:
            seen.append((weights_of(trainer.network), weights_of(trainer.averaged.network)))
        return {f"{part}/{name}": 0.5 for part in ("train", "validation") for name in ("clean", "robust")}

    loop = Loop(trainer, batches(MIX), validate, epochs=3, folder=folder)
    if stop_in:
        with pytest.raises(Interrupted):
            loop.run()
    else:
        loop.run()
    return trainer


AVERAGES = {
    "swa": lambda n: SWA(n, epochs=3, start=0.3),
    "ema": lambda n: EMA(n, 0.5),
    "ema_recalibrated": lambda n: EMA(n, 0.5, "recalibrated"),
}


@pytest.mark.usefixtures("float64")
def test_swa_through_the_loop_is_the_mean_of_its_epochs_with_statistics_of_its_own(tmp_path):
    seen = []
    trainer = run(tmp_path, AVERAGES["swa"], seen=seen)
    names = [v.path.split("/")[-1] for v in trainer.network.weights]
    for name, average, *trained in zip(names, seen[2][1], *[latest for latest, _ in seen], strict=True):
        mean = np.mean(trained[1:], axis=0)  # epochs 2 and 3
        assert np.allclose(average, mean, rtol=1e-10) == (not name.startswith("moving"))
    for value, latest in zip(seen[0][1], seen[0][0], strict=True):
        np.testing.assert_array_equal(value, latest)  # after epoch 1, before its start
    assert_same_weights(keras.models.load_model(tmp_path / "last.keras"), trainer.averaged.network)
    statistics = weights_of(trainer.averaged.network)
    trainer.averaged.refresh(batches(MIX).dataset(6, 9), 3)  # the last epoch's batches again
    for value, again in zip(statistics, weights_of(trainer.averaged.network), strict=True):
        np.testing.assert_array_equal(value, again)


@pytest.mark.usefixtures("float64")
def test_an_average_does_not_disturb_what_is_trained(tmp_path):
    plain, averaged = (run(tmp_path / name, AVERAGES.get(name, Latest)) for name in ("latest", "swa"))
    assert plain.averaged.network is plain.network
    assert_same_weights(averaged.network, plain.network)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["swa", *(pytest.param(name, marks=pytest.mark.slow) for name in list(AVERAGES)[1:])])
def test_an_average_is_the_same_after_a_resume(name, tmp_path):
    whole = run(tmp_path / "whole", AVERAGES[name])
    for stop_in in (1, 3):
        run(tmp_path / "stopped", AVERAGES[name], stop_in=stop_in)
    resumed = run(tmp_path / "stopped", AVERAGES[name])
    assert_same_weights(whole.network, resumed.network)
    assert_same_weights(whole.averaged.network, resumed.averaged.network)


@pytest.mark.slow
def test_the_command_trains_averages_and_goes_on_with_them(tmp_path, commands):
    files = ["gin/at.gin", "gin/digits.gin"]
    average = ["Recipe.averaging=@SWA", "SWA.epochs=%EPOCHS", "SWA.start=0.3"]
    statistics = ["NETWORK=@lenet", "lenet.width=2"]  # it has some
    settings = [*average, *statistics, "EPOCHS=3", "Data.limit=192", "test/Measurement.examples=50"]
    flags = [*(f"--gin_file={file}" for file in files), *(f"--gin_bindings={setting}" for setting in settings)]
    assert commands.train(*flags, f"--workdir={tmp_path / 'whole'}").returncode == 0
    again = [*flags, f"--workdir={tmp_path / 'stopped'}"]
    process = commands.start("pipelines.train", *again)
    process.until(lambda: list((tmp_path / "stopped").glob("checkpoints/*.index")))
    process.send_signal(signal.SIGTERM)
    process.end()
    done = commands.train(*again)
    assert "going on from epoch" in done.stdout, done.stderr
    whole, stopped = (keras.models.load_model(tmp_path / name / "last.keras") for name in ("whole", "stopped"))
    assert_same_weights(whole, stopped)
    history = [(tmp_path / name / "history.json").read_text() for name in ("whole", "stopped")]
    assert history[0] == history[1]
