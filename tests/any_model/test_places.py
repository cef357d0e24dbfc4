"""An attack on an input or on a layer's output, with compile's own loss."""

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

import awp_tf
from awp_tf.any_model.places import InputPlace, LayerPlace, place
from awp_tf.attacks import FGSM, PGD, ZeroStart
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP, Identity
from awp_tf.threats import L2, Linf

X, Y = keras_models.both(), keras_models.both_targets()


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def linear(on_layer):
    """Its loss is w'x, so the worst direction is known."""
    inputs = keras.Input([3], name="features")
    hidden = keras.layers.Rescaling(1.0, name="copy")(inputs) if on_layer else inputs
    return keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="out")(hidden))


def mean_output(y_true, y_pred):
    return tf.reduce_mean(y_pred)


@pytest.mark.parametrize("on", ["features", "copy"])
@pytest.mark.parametrize(("threat", "direction"), [(Linf(0.5), np.sign), (L2(0.5), lambda g: g / np.linalg.norm(g))])
def test_fgsm_moves_along_the_gradient(on, threat, direction):
    network = linear(on == "copy")
    model = awp_tf.perturbed(network, Identity(), attack=FGSM(threat, box=None), on=on)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=mean_output)
    x = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]], "float32")
    w = network.layers[-1].kernel.numpy()
    loss = model.train_on_batch(x, x[:, :1])
    worst = x + 0.5 * direction(w[:, 0])
    assert float(np.asarray(loss)) == pytest.approx(float(np.mean(worst @ w)), abs=1e-5)
    # The gradient of the mean of w'x is the mean of x, at the worst x.
    np.testing.assert_allclose(network.layers[-1].kernel.numpy(), w - worst.mean(axis=0)[:, None], atol=1e-5)


def test_a_named_input_of_a_dict_and_its_box():
    boxed = make(on="table", attack=PGD(Linf(0.1), box=(-4.0, 4.0)))
    assert np.isfinite(boxed.fit(X, Y, verbose=0).history["loss"][0])
    with pytest.raises(UserError, match=r"images: expected pixels in \[0, 1\]"):
        make(on="table", attack=PGD(Linf(0.1))).fit(X, Y, verbose=0)
    with pytest.raises(UserError, match=r"inputs: expected values in \[-0.5, 0.5\], .*PGD.box"):
        make(on="table", attack=PGD(Linf(0.1), box=(-0.5, 0.5))).fit(X, Y, verbose=0)


def make(network=None, perturbation=AWP(0.05), **settings):
    keras.utils.set_random_seed(0)
    model = awp_tf.perturbed(network or keras_models.tables_and_tokens(), perturbation, **settings)
    model.compile(optimizer="adam", **keras_models.TWO_LOSSES)
    return model


def test_the_attack_makes_the_loss_larger_and_training_differs():
    plain, attacked = make(), make(on="words", attack=FGSM(L2(1.0), box=None))
    settings = {"batch_size": keras_models.ROWS, "shuffle": False, "verbose": 0}  # one step: the same weights and masks
    assert attacked.fit(X, Y, **settings).history["loss"] > plain.fit(X, Y, **settings).history["loss"]
    assert np.abs(weights(plain.network) - weights(attacked.network)).max() > 1e-4


def test_a_shift_at_perturbed_weights_is_the_one_that_was_found_before():
    """The embedding itself is perturbed, too; what was added stays what was added."""
    network = keras_models.tables_and_tokens()
    layer = LayerPlace(network.get_layer("words"))
    shift = tf.ones([keras_models.ROWS, 5, 4])
    call = lambda x: network(x, training=False)  # noqa: E731
    before = layer.read(call, X)
    network.get_layer("words").embeddings.assign_add(tf.ones([20, 4]))
    moved = layer.shifted(call, X, shift)
    np.testing.assert_allclose(layer.read(call, X), before + 1, atol=1e-6)
    network.get_layer("words").embeddings.assign_add(tf.ones([20, 4]))
    np.testing.assert_allclose(moved["kind"], call(X)["kind"], atol=1e-6)


def test_masks_survive_and_the_layer_is_left_as_it_was():
    network = keras_models.recurrent()
    words = network.layers[0]
    x = keras_models.tokens()
    x[:, 3:] = 0  # masked
    shift = tf.concat([tf.zeros([keras_models.ROWS, 3, 4]), tf.ones([keras_models.ROWS, 2, 4])], axis=1)
    call = lambda x: network(x, training=False)  # noqa: E731
    np.testing.assert_array_equal(LayerPlace(words).shifted(call, x, shift), call(x))
    assert "call" not in vars(words)


def test_an_attack_draws_no_noise_and_moves_no_statistics_but_those_of_one_pass():
    network = keras_models.dense()
    model = awp_tf.perturbed(network, Identity(), attack=PGD(Linf(0.1), steps=5, start=ZeroStart(), box=None))
    model.compile(optimizer=keras.optimizers.SGD(0.0), **keras_models.cross_entropy())
    seeds = next(v for v in network.non_trainable_variables if "seed" in v.path)
    count = seeds.numpy()[1]
    model.train_on_batch(keras_models.table(), keras_models.classes())
    assert seeds.numpy()[1] == count + 1
    mean = network.layers[1].moving_mean.numpy()
    assert np.abs(mean).max() < 0.011  # a hundredth of a mean of tanh, in (-1, 1)
    assert mean.any()


def test_float16_embeddings_can_be_attacked():
    keras.config.set_dtype_policy("mixed_float16")
    model = make(on="words", attack=FGSM(L2(1.0), box=None))
    assert np.isfinite(model.fit(X, Y, verbose=0, epochs=2).history["loss"]).all()


def test_xla_attacks_the_same():
    weight = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        network = linear(on_layer=True)
        model = awp_tf.perturbed(network, AWP(0.1), attack=PGD(Linf(0.5), box=None), on="copy")
        model.compile(optimizer="sgd", loss="mse", jit_compile=jit)
        model.fit(keras_models.table()[:, :3], keras_models.table()[:, :1], verbose=0, shuffle=False)
        weight.append(weights(network))
    np.testing.assert_allclose(*weight, atol=1e-6)


def test_whole_numbers_are_refused_with_the_way_to_do_it():
    message = "expected an input of floats, received 'tokens' of int.*; name the layer that makes floats of it"
    with pytest.raises(UserError, match=message):
        make(on="tokens", attack=FGSM(L2(1.0), box=None)).fit(X, Y, verbose=0)


def test_inputs_of_a_subclass_are_found_by_their_keys():
    class Sum(keras.Model):
        def __init__(self):
            super().__init__()
            self.out, self.twice = keras.layers.Dense(3), keras.layers.Dense(6)

        def call(self, x):
            return self.out(self.twice(self.twice(x["deep"]["table"])) + x["other"])

    network = Sum()
    x = {"deep": {"table": keras_models.table()}, "other": keras_models.table()}
    network(x)
    attack = FGSM(Linf(0.1), box=None)
    settings = {"optimizer": "adam", **keras_models.cross_entropy()}
    model = awp_tf.perturbed(network, AWP(), attack=attack, on="other")
    model.compile(**settings)
    model.fit(x, keras_models.classes(), verbose=0)
    for on, message in (
        ("nothing", "received 'nothing'; there are the keys deep, other"),
        (network.twice.name, "called once, received 'dense.*', which was called 2 times"),
    ):
        model = awp_tf.perturbed(network, AWP(), attack=attack, on=on)
        model.compile(**settings)
        with pytest.raises(UserError, match=message):
            model.fit(x, keras_models.classes(), verbose=0)


def test_a_place_is_an_input_before_it_is_a_layer():
    network = keras_models.tables_and_tokens()
    assert isinstance(place(network, "table"), InputPlace)
    assert isinstance(place(network, "words"), LayerPlace)
    assert isinstance(place(linear(on_layer=False), None), InputPlace)
