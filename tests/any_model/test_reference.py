"""Against a plain implementation that writes perturbed weights into the variables and takes them back."""

import keras
import keras_models
import numpy as np
import pytest
import tensorflow as tf

import awp_tf
from awp_tf.perturbations import ASAM, AWP, SAM

STEPS, ROWS = 4, 9
X, Y = keras_models.both(STEPS * ROWS), keras_models.both_targets(STEPS * ROWS)


def awp(weights, gradients, gamma):
    return [
        gamma * np.linalg.norm(w) * g / np.linalg.norm(g) if w.ndim >= 2 else 0 * w
        for w, g in zip(weights, gradients, strict=True)
    ]


def awp_of_all(weights, gradients, gamma):
    of_rank_2 = [w.ndim >= 2 for w in weights]
    length = lambda tensors: np.sqrt(sum(np.sum(t**2) for t, moves in zip(tensors, of_rank_2, strict=True) if moves))  # noqa: E731
    factor = gamma * length(weights) / length(gradients)
    return [factor * g if moves else 0 * g for g, moves in zip(gradients, of_rank_2, strict=True)]


def sam(weights, gradients, rho):
    return [rho * g / np.sqrt(sum(np.sum(g**2) for g in gradients)) for g in gradients]


def asam(weights, gradients, rho):
    scaled = [np.abs(w) * g for w, g in zip(weights, gradients, strict=True)]
    size = np.sqrt(sum(np.sum(s**2) for s in scaled))
    return [rho * np.abs(w) * s / size for w, s in zip(weights, scaled, strict=True)]


def words_and_kernels(weights, gradients, gamma, paths):
    """AWP of embeddings and the biases of one layer."""
    chosen = ["words" in path or path == "size/bias" for path in paths]
    return [
        gamma * np.linalg.norm(w) * g / (np.linalg.norm(g) + 1e-20) if moves else 0 * w
        for w, g, moves in zip(weights, gradients, chosen, strict=True)
    ]


def loss_and_gradient(model, x, y):
    kind, size = keras.losses.SparseCategoricalCrossentropy(), keras.losses.MeanSquaredError()
    with tf.GradientTape() as tape:
        out = model(x, training=True)
        loss = kind(y["kind"], out["kind"]) + 0.3 * size(y["size"], out["size"]) + tf.add_n(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, gradients


def in_place(model, optimizer, direction, keeps_first, start):
    """One epoch; the losses at the weights themselves."""
    losses = []
    for step in range(STEPS):
        rows = slice(ROWS * step, ROWS * (step + 1))
        x, y = ({key: value[rows] for key, value in data.items()} for data in (X, Y))
        others = [v.numpy() for v in model.non_trainable_variables]
        before = [w.numpy() for w in model.trainable_variables]
        loss, gradients = loss_and_gradient(model, x, y)
        dense = [tf.convert_to_tensor(g).numpy() for g in gradients]
        after_first = [v.numpy() for v in model.non_trainable_variables]
        if step >= start:
            for w, v in zip(model.trainable_variables, direction(before, dense), strict=True):
                w.assign_add(v)
        for variable, value in zip(model.non_trainable_variables, others, strict=True):
            variable.assign(value)
        _, gradients = loss_and_gradient(model, x, y)
        for w, value in zip(model.trainable_variables, before, strict=True):
            w.assign(value)
        if keeps_first:
            for variable, value in zip(model.non_trainable_variables, after_first, strict=True):
                variable.assign(value)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    return losses


def words(weights, gradients):
    return words_and_kernels(
        weights, gradients, 0.1, [v.path for v in keras_models.tables_and_tokens().trainable_variables]
    )


CASES = {
    "AWP": (AWP(0.1), {}, lambda w, g: awp(w, g, 0.1), False),
    "AWP of all as one": (AWP(0.1, norm="global"), {}, lambda w, g: awp_of_all(w, g, 0.1), False),
    "AWP by paths": (AWP(0.1), {"where": r"words|size/bias"}, words, False),
    "AWP from step 2": (AWP(0.1), {"start": 2}, lambda w, g: awp(w, g, 0.1), False),
    "SAM": (SAM(0.2), {}, lambda w, g: sam(w, g, 0.2), True),
    "ASAM": (ASAM(0.5), {}, lambda w, g: asam(w, g, 0.5), True),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_perturbing_in_place(name, float64):
    perturbation, settings, direction, keeps_first = CASES[name]
    keras.utils.set_random_seed(0)
    theirs = keras_models.tables_and_tokens()
    losses = in_place(theirs, keras.optimizers.SGD(0.3, momentum=0.9), direction, keeps_first, settings.get("start", 0))

    keras.utils.set_random_seed(0)
    ours = keras_models.tables_and_tokens()
    model = awp_tf.perturbed(ours, perturbation, **settings)
    model.compile(optimizer=keras.optimizers.SGD(0.3, momentum=0.9), **keras_models.TWO_LOSSES)
    history = model.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0).history

    assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-12)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_perturbation_matters_in_these_cases(float64):
    weights = []
    for perturbation in (AWP(0.0), AWP(0.1)):
        keras.utils.set_random_seed(0)
        ours = keras_models.tables_and_tokens()
        model = awp_tf.perturbed(ours, perturbation)
        model.compile(optimizer=keras.optimizers.SGD(0.3, momentum=0.9), **keras_models.TWO_LOSSES)
        model.fit(X, Y, batch_size=ROWS, shuffle=False, verbose=0)
        weights.append(np.concatenate([w.ravel() for w in ours.get_weights()]))
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
