"""Forms of a convolution: the same numbers and derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.networks import convolution_forms
from awp_tf.networks.convolution_forms import at_points, columns, turn, turned, winograd

FORMS = {
    "winograd": lambda x, kernel: winograd(x, at_points(kernel)),
    "columns": columns,
    "turned": lambda x, kernel: turned(x, kernel, turn(kernel)),
}


def direct(x, kernel):
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def inputs(height, width, channels, filters, dtype="float64"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, height, width, channels)).clip(0)
    kernel = rng.normal(size=(3, 3, channels, filters)) / np.sqrt(9 * channels)
    return tf.constant(x, dtype), tf.constant(kernel, dtype)


def with_gradients(form, x, kernel):
    """Outputs, gradients, and what the gradient of a gradient is: RAT and FS-DGPM take second derivatives."""
    with tf.GradientTape(persistent=True) as outer:
        outer.watch((x, kernel))
        with tf.GradientTape() as tape:
            tape.watch((x, kernel))
            y = form(x, kernel)
            loss = tf.reduce_sum(tf.sin(y))
        first = tape.gradient(loss, (x, kernel))
        total = tf.add_n([tf.reduce_sum(g**2) for g in first])
    return [y, *first, *outer.gradient(total, (x, kernel))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (4, 12), (16, 4)])
def test_a_form_has_the_numbers_and_derivatives_of_the_convolution(form, height, width):
    x, kernel = inputs(height, width, 5, 3)
    for found, expected in zip(with_gradients(FORMS[form], x, kernel), with_gradients(direct, x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_points_of_winograd_halve_the_error_of_the_usual_ones_in_float32(monkeypatch):
    x, kernel = inputs(8, 8, 512, 64)

    def error():
        found = winograd(tf.cast(x, tf.float32), at_points(tf.cast(kernel, tf.float32)))
        return float(tf.reduce_max(tf.abs(tf.cast(found, tf.float64) - direct(x, kernel))))

    ours = error()
    monkeypatch.setattr(convolution_forms, "_POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    convolution_forms._transforms.cache_clear()
    try:
        assert ours < 0.5 * error()
    finally:
        convolution_forms._transforms.cache_clear()


@pytest.mark.parametrize("form", FORMS)
def test_no_images_give_no_outputs(form):
    x, kernel = inputs(4, 4, 16, 3)
    assert FORMS[form](x[:0], kernel).shape == (0, 4, 4, 3)
