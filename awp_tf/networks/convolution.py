"""Convolutions with PyTorch's padding, and faster forms of them on a CPU (docs/results.md, Speed).

With AVX-512 oneDNN's kernels work along the rows of an image, and rows of 4 or 8 pixels leave part of a register empty:
the last two stages of a network of CIFAR-10 run at a quarter to three quarters of the speed of the first. Matrix
products have no such rows. Without AVX-512, as on most laptops, forward passes of all stages run at the speed of a
matrix product, by oneDNN or Eigen, but gradients of images at a sixth to three quarters of that, and all gradients in
16 bits at a thirtieth. Of strided 1x1 convolutions of few channels oneDNN's gradient of the kernel writes beyond its
memory (see UNSAFE_BELOW), so these are computed without a stride.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from awp_tf.infra.cpu import has_avx512
from awp_tf.infra.keras_layers import UNSAFE_BELOW
from awp_tf.networks.convolution_forms import TILE, at_points, columns, turn, turned, winograd
from awp_tf.networks.layers import CHANNELS_LAST
from awp_tf.prepared import ready_of

_KERAS_OWN = contextvars.ContextVar("_KERAS_OWN", default=False)
_MOST_PIXELS = 64
_FEWEST_CHANNELS = 16


class _Form(NamedTuple):
    """A way to compute a convolution.

    Attributes:
        apply: Of inputs [B, H, W, C] and what prepare made, outputs [B, H, W, K].
        prepare: Of a kernel [h, w, C, K], what depends on nothing else.
    """

    apply: Callable[[tf.Tensor, Any], tf.Tensor]
    prepare: Callable[[tf.Tensor], Any] = lambda kernel: kernel


@keras.saving.register_keras_serializable(package="awp_tf")
class Conv2D(keras.layers.Conv2D):
    """Keras' Conv2D; some convolutions take another form on a CPU, with the same weights."""

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates the weights, and notes the size of images."""
        super().build(input_shape)
        self._images = tuple(input_shape[1:])

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution alone: inputs [B, H, W, C], kernel [h, w, C, K], result [B, H, W, K]."""
        dtype = _computed_in(inputs.dtype)
        form = _form(self, tuple(inputs.shape[1:]), dtype)
        made = ready_of(self)
        if made is not None and made[0] == form:
            ready = made[1]
        else:
            kernel = tf.cast(tf.convert_to_tensor(kernel), dtype)
            ready = form.prepare(kernel) if form else kernel
        x = tf.cast(inputs, dtype)
        return tf.cast(form.apply(x, ready) if form else super().convolution_op(x, ready), inputs.dtype)

    def prepared(self, kernel: tf.Tensor) -> tuple[_Form | None, Any] | None:
        """What calls with images of the size that it was built for make of its kernel; None where that is nothing."""
        dtype = _computed_in(self.compute_dtype)
        form = _form(self, self._images, dtype)
        constant = not tf.is_symbolic_tensor(kernel)
        # Constants stay what they are where they can: oneDNN keeps those in the order that it likes best.
        if form is None and constant:
            return None
        kernel = tf.cast(tf.cast(kernel, self.compute_dtype), dtype)
        ready = form.prepare(kernel) if form else kernel
        return form, tf.nest.map_structure(np.asarray, ready) if constant and form == _TURNED else ready


@contextlib.contextmanager
def as_keras_does() -> Iterator[None]:
    """What is traced inside has Keras' own convolutions: a graph that others read, or run on another machine."""
    token = _KERAS_OWN.set(True)
    try:
        yield
    finally:
        _KERAS_OWN.reset(token)


def conv(
    x: Any, filters: int, *, size: int = 3, stride: int = 1, initializer: keras.initializers.Initializer, name: str
) -> Any:
    """A convolution without bias that pads symmetrically.

    Keras' "same" pads a strided convolution on one side only, where PyTorch's padding=1 does both.
    """
    padding = "same"
    if stride > 1 and size > 1:
        x = keras.layers.ZeroPadding2D(size // 2, CHANNELS_LAST, name=f"{name}.pad")(x)
        padding = "valid"
    return Conv2D(
        filters, size, stride, padding, CHANNELS_LAST, use_bias=False, kernel_initializer=initializer, name=name
    )(x)


def _computed_in(dtype: Any) -> tf.DType:
    """The type that a convolution is computed in: without AVX-512 nothing is gained by 16 bits, and gradients lose."""
    dtype = tf.as_dtype(dtype)
    return tf.float32 if dtype.size == 2 and not (has_avx512() or _keras_is_best()) else dtype


def _keras_is_best() -> bool:
    return _KERAS_OWN.get() or bool(tf.config.list_physical_devices("GPU"))


def _form(layer: Conv2D, shape: tuple[int | None, ...], dtype: tf.DType) -> _Form | None:
    """The fastest form that is known for a layer and inputs [B, *shape]; None is Keras' own."""
    height, width, channels = shape
    if _keras_is_best():
        return None
    if layer.kernel_size == (1, 1) and max(layer.strides) > 1 and (channels or 0) < UNSAFE_BELOW:
        return _sliced(*layer.strides)
    if not _unstrided(layer) or (channels or 0) < _FEWEST_CHANNELS:
        return None
    return _of_images(height, width, dtype) if has_avx512() else _TURNED


def _of_images(height: int | None, width: int | None, dtype: tf.DType) -> _Form | None:
    """That of an unstrided 3x3 convolution with AVX-512."""
    if not (height and width) or height * width > _MOST_PIXELS:
        return None
    if dtype.size == 2:  # too few bits for winograd
        return _COLUMNS if max(height, width) <= TILE else None
    return _WINOGRAD if height % TILE == width % TILE == 0 else None


def _unstrided(layer: Conv2D) -> bool:
    """Whether it is an unstrided 3x3 convolution with zeros around the image."""
    sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
    return sizes == ((3, 3), (1, 1), (1, 1)) and (layer.groups, layer.padding, layer.data_format) == (
        1,
        "same",
        CHANNELS_LAST,
    )


@functools.cache
def _sliced(down: int, right: int) -> _Form:
    """A strided 1x1 convolution as an unstrided one of the pixels that it sees."""
    return _Form(lambda x, kernel: tf.nn.conv2d(x[:, ::down, ::right], kernel, 1, "VALID"))


_WINOGRAD, _COLUMNS = _Form(winograd, at_points), _Form(columns)
_TURNED = _Form(lambda x, kernels: turned(x, *kernels), lambda kernel: (kernel, turn(kernel)))
