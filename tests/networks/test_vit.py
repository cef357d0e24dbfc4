"""The Vision Transformer: sizes, derivatives of both orders, precisions, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_batch, tiny_trainer, weights_of

from awp_tf.attacks import FGSM
from awp_tf.averaging import EMA
from awp_tf.export.onnx import export_onnx
from awp_tf.export.settings import Servable
from awp_tf.functional import bind, require_smooth
from awp_tf.infra.checkpoints import require_readable
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.networks import vit
from awp_tf.networks.vit import LayerNorm, Positions
from awp_tf.perturbations import RAT
from awp_tf.threats import Linf

NARROW = {"patch": 2, "width": 8, "depth": 2, "heads": 2}


def narrow(seed=0, **settings):
    keras.utils.set_random_seed(seed)
    return vit(**{"shape": SHAPE, "classes": CLASSES, **NARROW, **settings})


def test_sizes_are_those_of_the_formula():
    network = vit(shape=(32, 32, 3), classes=10)
    width, hidden = 192, 768
    block = 4 * width + 4 * width**2 + (width + 1) * hidden + (hidden + 1) * width
    rest = (4 * 4 * 3 + 1) * width + 64 * width + 2 * width + (width + 1) * 10
    assert network.count_params() == 6 * block + rest == 2_688_586
    assert not network.non_trainable_variables
    assert network.get_layer("block6.attention").get_config()["key_dim"] == 64


def test_patches_are_read_row_by_row_and_each_has_its_place(rng):
    network = narrow(shape=(4, 6, 1), depth=1)
    x = np.zeros((1, 4, 6, 1), np.float32)
    x[0, 2:, 2:4] = 1  # the second of three patches of the second of two rows
    tokens = keras.Model(network.input, network.get_layer("tokens").output)
    assert np.flatnonzero(np.abs(tokens(x) - tokens(0 * x)).max(-1)) == [4]
    images = rng.uniform(0, 1, (2, 4, 6, 1)).astype("float32")
    assert np.abs(network(images) - network(np.flip(images, 2).copy())).max() > 1e-3


def test_layer_norm_is_that_of_keras(rng):
    x = tf.constant(rng.normal(2, 3, (4, 5, 8)), tf.float32)
    np.testing.assert_allclose(LayerNorm()(x), keras.layers.LayerNormalization(epsilon=1e-6)(x), atol=1e-5)


def along(function, x, direction, step=1e-4):
    """The derivative of a function at x along a direction, by central differences."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("training", [False, True])
def test_both_derivatives_by_pixels_are_finite_differences(training, rng):
    network = narrow()
    weights = [v.value for v in network.trainable_variables]
    x, y = tiny_batch(4, "float64")
    direction = tf.constant(rng.normal(size=x.shape))

    def loss(x):
        return tf.reduce_sum(cross_entropy(bind(network, weights, [], training=training)(x), y))

    first = tf.reduce_sum(gradient(loss, x) * direction)
    np.testing.assert_allclose(first, along(loss, x, direction), rtol=1e-5)
    second = gradient(lambda x: tf.reduce_sum(gradient(loss, x) * direction), x)
    differences = along(lambda x: gradient(loss, x), x, direction)
    np.testing.assert_allclose(second, differences, rtol=1e-4, atol=1e-5 * np.abs(second).max())


@pytest.mark.usefixtures("float64")
def test_both_derivatives_by_weights_are_finite_differences(rng):
    network, (x, y) = narrow(), tiny_batch(4, "float64")
    shapes = [v.shape for v in network.trainable_variables]
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = tf.concat([tf.reshape(v.value, [-1]) for v in network.trainable_variables], 0)
    direction = tf.constant(rng.normal(size=flat.shape))

    def loss(flat):
        parts = [tf.reshape(part, shape) for part, shape in zip(tf.split(flat, sizes), shapes, strict=True)]
        return tf.reduce_sum(cross_entropy(bind(network, parts, [], training=True)(x), y))

    first = tf.reduce_sum(gradient(loss, flat) * direction)
    np.testing.assert_allclose(first, along(loss, flat, direction, 1e-5), rtol=1e-5)
    second = gradient(lambda flat: tf.reduce_sum(gradient(loss, flat) * direction), flat)
    differences = along(lambda flat: gradient(loss, flat), flat, direction, 1e-5)
    np.testing.assert_allclose(second, differences, rtol=1e-4, atol=1e-5 * np.abs(second).max())


def test_it_is_smooth_and_its_exact_taylor_terms_train():
    require_smooth(narrow())
    rat = RAT(1e-2, estimator="hessian")
    assert np.isfinite(tiny_trainer(narrow(), perturbation=rat, xla=False).train_step(tiny_batch())["loss"])


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_xla_computes_the_same_step():
    networks = [narrow(depth=1), narrow(depth=1)]
    for network, xla in zip(networks, (False, True), strict=True):
        tiny_trainer(network, xla=xla).train_step(tiny_batch(dtype="float64"))
    assert_same_weights(*networks, atol=1e-9)


@pytest.mark.parametrize(
    ("policy", "inside", "outside"),
    [
        ("float32", "float32", "float32"),
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("float64", "float64", "float64"),
    ],
)
def test_pixels_norms_and_logits_keep_32_bits(policy, inside, outside):
    keras.config.set_floatx(outside)
    keras.config.set_dtype_policy(policy)
    network = narrow()
    assert network.get_layer("block1.attention").compute_dtype == network.get_layer("patches").compute_dtype == inside
    assert network.get_layer("block1.norm1").compute_dtype == network.get_layer("normalize").compute_dtype == outside
    x, y = tiny_batch(dtype=outside)
    assert network(x).dtype == outside
    losses = [tiny_trainer(network).train_step((x, y))["loss"] for _ in range(2)]
    assert np.isfinite(losses).all()


def test_trades_with_awp_moves_every_weight_and_learns():
    network = narrow(width=16, depth=1)
    before = weights_of(network)
    trainer = tiny_trainer(network, averaging=EMA, attack=FGSM(Linf(0.05)), rate=0.05)
    losses = [float(trainer.train_step(tiny_batch(40))["loss"]) for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    for variable, was in zip(network.trainable_variables, before, strict=True):
        assert np.abs(np.asarray(variable) - was).max() > 0, variable.path


def test_it_is_read_back_with_layers_of_its_own(tmp_path):
    network = narrow(mean=(0.5,), std=(0.25,))
    require_readable(network)
    network.save(tmp_path / "vit.keras")
    loaded = keras.models.load_model(tmp_path / "vit.keras")
    assert_same_weights(loaded, network)
    np.testing.assert_array_equal(loaded(tiny_batch()[0]), network(tiny_batch()[0]))
    kinds = {type(layer) for layer in loaded.layers}
    assert {LayerNorm, Positions} <= kinds


@pytest.mark.slow
def test_it_has_an_onnx_file_that_answers_alike(tmp_path, rng):
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra 'onnx' is not installed")
    pytest.importorskip("tf2onnx", reason="extra 'onnx' is not installed")
    network = narrow()
    network.save(tmp_path / "vit.keras")
    pixels = rng.integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    path = export_onnx(Servable("vit", tmp_path / "vit.keras", pixels, list("abcd")), str(tmp_path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": pixels})
    np.testing.assert_allclose(found, network(pixels / np.float32(255)), atol=1e-4)


def test_normalisation_is_part_of_the_network():
    inside, without = narrow(mean=(0.5,), std=(0.25,)), narrow(mean=(0.5,), std=(0.25,), normalize=False)
    x = tiny_batch()[0]
    np.testing.assert_allclose(inside(x), without((x - 0.5) / 0.25), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 3}, "vit.patch: expected a divisor of the image's 8 x 8, received 3"),
        ({"patch": 16}, "vit.patch: expected a divisor of the image's 8 x 8, received 16"),
        ({"shape": (8, 6, 1), "patch": 4}, "vit.patch: expected a divisor of the image's 8 x 6, received 4"),
        ({"heads": 3}, "vit.heads: expected a divisor of vit.width, 8, received 3"),
        ({"depth": 0}, "vit.depth: expected a whole number >= 1, received 0"),
        ({"patch": 2.0}, "vit.patch: expected a whole number >= 1, received 2.0"),
        ({"mlp_ratio": 0}, "vit.mlp_ratio: expected a number > 0, received 0"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        narrow(**settings)
    assert "\n" not in str(error.value)
