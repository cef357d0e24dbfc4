import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import SHAPE, tiny_network, tiny_split

from awp_tf.continual.basis import Basis, GradientBases, NoBasis, extend, project
from awp_tf.continual.report import warn_of_full
from awp_tf.continual.tasks import Task
from awp_tf.infra.errors import UserError


def dense(inputs=6, outputs=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((1, inputs, 1)), keras.layers.Flatten(), keras.layers.Dense(outputs)])


def orthonormal(basis):
    return np.abs(basis.T @ basis - np.eye(basis.shape[1])).max() < 1e-10


def test_a_step_orthogonal_to_a_basis_leaves_what_the_layer_answers(rng):
    network = dense()
    images = np.einsum("nk,kd->nd", rng.normal(size=(20, 2)), rng.normal(size=(2, 6))).reshape(20, 1, 6, 1)  # of rank 2
    bases = GradientBases(network, Basis().layers(network, multi_head=False))
    bases.extend(images, 1 - 1e-11, anew=True)
    assert bases.sizes() == {bases.layers[0]: (2, 6)}
    gradient = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in network.trainable_variables]
    inside = bases.project(gradient, [tf.ones([6])])
    outside = gradient[0] - inside[0]
    rows = images.reshape(20, 6)
    assert np.abs(rows @ outside.numpy()).max() < 1e-6 * np.abs(rows @ gradient[0].numpy()).max()
    np.testing.assert_array_equal(inside[1], gradient[1])  # a bias has no basis


def test_a_gradient_of_a_shape_that_is_not_known_before_is_projected_alike(rng):
    u, gradient = np.eye(6, dtype=np.float32), tf.constant(rng.normal(size=(6, 3)), tf.float32)
    weight = tf.constant([1.0, 0, 0.5, 0, 0, 0])
    traced = tf.function(lambda g: project([u], [weight], [g], [0]), input_signature=[tf.TensorSpec([None, None])])
    np.testing.assert_allclose(traced(gradient)[0], weight[:, None] * gradient, atol=1e-6)


def test_half_an_importance_takes_half_of_the_direction_out(rng):
    network = dense()
    bases = GradientBases(network, Basis().layers(network, multi_head=False))
    bases.extend(rng.normal(size=(20, 1, 6, 1)), 0.5, anew=True)
    gradient = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in network.trainable_variables]
    whole, half = (bases.project(gradient, [tf.fill([6], value)])[0] for value in (1.0, 0.5))
    np.testing.assert_allclose(half, 0.5 * whole.numpy(), rtol=1e-5)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_a_basis_reaches_its_energy_with_as_few_directions_as_possible(energy, rng):
    rows = rng.normal(size=(50, 12)) * np.geomspace(5, 0.1, 12)
    gram = rows.T @ rows
    basis = extend(np.zeros([12, 0]), gram, energy)
    kept = [np.square(rows @ basis[:, :k]).sum() / np.square(rows).sum() for k in range(basis.shape[1] + 1)]
    assert orthonormal(basis)
    assert kept[-1] >= energy > kept[-2]
    singular = np.linalg.svd(rows, compute_uv=False) ** 2
    assert basis.shape[1] == np.searchsorted(np.cumsum(singular) / singular.sum(), energy) + 1  # as the released code


def test_what_was_kept_before_stays_and_counts(rng):
    first, second = rng.normal(size=(50, 8)) * np.geomspace(5, 0.1, 8), rng.normal(size=(50, 8))
    before = extend(np.zeros([8, 0]), first.T @ first, 0.9)
    after = extend(before, second.T @ second, 0.9)
    np.testing.assert_array_equal(after[:, : before.shape[1]], before)
    assert orthonormal(after)
    assert np.square(second @ after).sum() >= 0.9 * np.square(second).sum()
    assert extend(after, second.T @ second, 0.9).shape == after.shape


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, "same", 1), (2, "valid", 1), (1, "valid", 2)])
def test_patches_times_the_kernel_are_the_convolution(stride, padding, dilation, rng):
    inputs = keras.Input((9, 9, 2))
    layer = keras.layers.Conv2D(4, 3, stride, padding, dilation_rate=dilation, use_bias=False)
    network = keras.Model(inputs, layer(inputs))
    images = rng.normal(size=(5, 9, 9, 2)).astype(np.float32)
    gram = GradientBases(network, [layer])._inputs_of(images)[0]
    kernel = layer.kernel.numpy().reshape(18, 4)
    energy = np.square(network(images)).sum(axis=(0, 1, 2))
    np.testing.assert_allclose(np.einsum("di,de,ei->i", kernel, gram, kernel), energy, rtol=1e-4)


def test_a_head_that_tasks_do_not_share_has_no_basis():
    network = tiny_network()
    names = [layer.name for layer in Basis().layers(network, multi_head=False)]
    assert names == ["conv1.1", "conv1.2", "conv2.1", "conv2.2", "dense", "logits"]
    assert [layer.name for layer in Basis().layers(network, multi_head=True)] == names[:-1]
    assert NoBasis().layers(network, multi_head=False) == []


def test_bases_come_anew_or_grow():
    network, images = tiny_network(), tiny_split().images
    bases = GradientBases(network, Basis().layers(network, multi_head=True))
    bases.extend(images[:10], 0.9, anew=True)
    first = [value.numpy() for value in bases.values]
    bases.extend(images[10:], 0.99, anew=False)
    for (kept, inputs), before, value in zip(bases.sizes().values(), first, bases.values, strict=True):
        columns = int(np.any(before != 0, axis=0).sum())
        assert columns <= kept <= inputs
        np.testing.assert_array_equal(value.numpy()[:, :columns], before[:, :columns])
    assert float(bases.begun) == 1


def test_a_basis_that_spans_everything_is_said(capsys):
    split = tiny_split(4)
    warn_of_full(Task("task 2", (0, 1), split, split, split), {"conv1": (9, 9), "dense": (3, 9)})
    assert "after task 2 the basis of layer conv1 spans all its 9 inputs" in capsys.readouterr().err
    warn_of_full(Task("task 2", (0, 1), split, split, split), {"dense1": (60, 64), "dense2": (57, 64)})
    said = capsys.readouterr().err
    assert "dense1 spans 60 of its 64 inputs" in said
    assert "dense2" not in said


def test_settings_and_networks_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match=r"Basis\.threshold: expected a share in 0\.\.1, received 1\.5"):
        Basis(threshold=1.5)
    inputs = keras.Input(SHAPE)
    empty = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs), name="empty")
    with pytest.raises(UserError, match="empty: expected Dense or Conv2D layers"):
        Basis().layers(empty, multi_head=False)


def test_the_share_grows_with_tasks_and_never_becomes_all():
    assert Basis(0.9, 0.005).energy(2) == pytest.approx(0.91)
    assert Basis(0.97, 0.01).energy(9) == 1 - 1e-11


def test_a_layer_whose_inputs_are_all_zero_gets_no_basis():
    assert extend(np.zeros([4, 0]), np.zeros([4, 4]), 0.9).shape == (4, 0)
