"""The networks of continual learning: sizes as in the released definitions, and that they train and save."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.export.export import export
from awp_tf.export.settings import Export, Servable
from awp_tf.infra.errors import UserError
from awp_tf.methods import AT
from awp_tf.networks import alexnet, conv4, lenet, mlp
from awp_tf.optimizers import SGD
from awp_tf.perturbations import AWP
from awp_tf.threats import Linf
from awp_tf.trainer import RobustTrainer

# Without biases; BatchNorm's gamma and beta count.
ALEXNET = 64 * 3 * 16 + 128 * 64 * 9 + 2 * 128 + 256 * 128 * 4 + 1024 * 2048 + 2048 * 2048 + 2048 * 100
LENET = 20 * 3 * 25 + 2 * 20 + 50 * 20 * 25 + 2 * 50 + 50 * 8 * 8 * 800 + 800 * 500 + 500 * 100
CONV4 = 160 * 27 + 3 * 160 * 160 * 9 + 2560 * 640 + 640 * 640 + 640 * 200


@pytest.mark.parametrize(
    ("network", "shape", "classes", "parameters"),
    [
        (mlp, (28, 28, 1), 10, 784 * 100 + 100 * 100 + 100 * 10),
        (alexnet, (32, 32, 3), 100, ALEXNET),
        (lenet, (32, 32, 3), 100, LENET),
        (conv4, (64, 64, 3), 200, CONV4),
    ],
)
def test_sizes_are_those_of_the_released_definitions(network, shape, classes, parameters):
    made = network(shape=shape, classes=classes)
    assert sum(int(np.prod(v.shape)) for v in made.trainable_variables) == parameters
    assert not [v.path for v in made.trainable_variables if "bias" in v.path]


def test_lenet_pools_as_pytorch_does(rng):
    network = lenet(shape=(12, 12, 1), classes=3, width=2)
    before, after = network.get_layer("conv1.relu").output, network.get_layer("conv1.pool").output
    found, value = keras.Model(network.inputs[0], [after, before])(rng.uniform(size=(2, 12, 12, 1)).astype(np.float32))
    padded = np.pad(value, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.stack([padded[:, i : i + 11 : 2, j : j + 11 : 2] for i in range(3) for j in range(3)])
    np.testing.assert_array_equal(found, windows.max(axis=0))


@pytest.mark.parametrize(
    ("network", "size"),
    [(mlp, {"hidden": (8, 8)}), (alexnet, {"width": 2}), (lenet, {"width": 2}), (conv4, {"width": 4})],
)
def test_they_train_and_come_back_from_a_file(network, size, tmp_path, rng):
    keras.utils.set_random_seed(0)
    made = network(shape=(32, 32, 3), classes=4, **size)
    attack = PGD(Linf(0.03), steps=2, relative_step_size=0.5)
    trainer = RobustTrainer(made, method=AT(), attack=attack, perturbation=AWP(0.01))
    trainer.compile(SGD(0.01))
    x = tf.constant(rng.uniform(size=(6, 32, 32, 3)), tf.float32)
    assert np.isfinite(float(trainer.train_step((x, tf.constant([0, 1, 2, 3, 0, 1])))["loss"]))
    made.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "network.keras")(x), made(x))


@pytest.mark.parametrize("network", [alexnet, lenet, conv4])
def test_images_too_small_for_the_poolings_are_refused(network):
    with pytest.raises(UserError, match=r"shape: expected a whole number >= (8|12|16), received 6"):
        network(shape=(6, 6, 1), classes=3)


@pytest.mark.parametrize("size", [12, 15, 16, 20, 23, 24, 40])
def test_alexnet_takes_every_size_of_which_the_poolings_leave_something(size):
    network = alexnet(shape=(size, size, 1), classes=3, width=1)
    assert network.get_layer("conv3.pool").output.shape[1] >= 1


@pytest.mark.parametrize("hidden", [100, "100", None])
def test_hidden_layers_that_are_no_list_are_refused(hidden):
    with pytest.raises(UserError, match=r"mlp.hidden: expected the neurons of each hidden layer, as \(100, 100\)"):
        mlp(shape=(8, 8, 1), classes=10, hidden=hidden)


@pytest.mark.parametrize("network", [alexnet, lenet])
def test_dropout_and_batch_norm_are_of_training_only_and_leave_the_network_through_its_state(network, rng):
    keras.utils.set_random_seed(0)
    made = network(shape=(32, 32, 3), classes=4, width=4)
    x = tf.constant(rng.uniform(size=(6, 32, 32, 3)), tf.float32)
    weights, before = made.trainable_variables, [np.array(v) for v in made.non_trainable_variables]
    state = made.non_trainable_variables
    logits, after = tf.function(lambda: made.stateless_call(weights, state, x, training=True))()
    assert np.abs(logits - made(x)).max() > 1e-3
    assert all(np.abs(np.array(a) - b).max() > 0 for a, b in zip(after, before, strict=True))
    for variable, value in zip(made.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)  # nothing was written


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size"),
    [(mlp, {"hidden": (8,)}), (alexnet, {"width": 2}), (lenet, {"width": 2}), (conv4, {"width": 2})],
)
def test_they_are_served_as_they_are(network, size, tmp_path, rng):
    made = network(shape=(32, 32, 3), classes=3, mean=(0.5,), std=(0.25,), **size)
    made.save(tmp_path / "net.keras")
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    servable = Servable("net", tmp_path / "net.keras", images, ["a", "b", "c"])
    folder = export(servable, Export(batch_sizes=(1, 4), floats=True), str(tmp_path / "serving"))
    served = tf.saved_model.load(str(folder))
    pixels = images.astype(np.float32) / 255
    found = served.signatures["serving_float"](images=tf.constant(pixels))["logits"]
    np.testing.assert_allclose(found, made(pixels, training=False), atol=1e-5)
