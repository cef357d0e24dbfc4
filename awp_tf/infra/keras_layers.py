"""What Keras knows of a model's layers and has no public name for."""

import os
import sys

import keras
import tensorflow as tf

from awp_tf.infra.cpu import has_avx512

# Channels of a strided 1x1 convolution, so many numbers as a register of AVX-512 holds: of fewer, oneDNN's gradient of
# the kernel writes beyond its memory where the batch is odd (TensorFlow 2.21). With AVX2 alone, half as many.
UNSAFE_BELOW = 16


def all_layers(model: keras.Layer) -> list[keras.Layer]:
    """A model, then all layers in it at any depth, each once."""
    layers: list[keras.Layer] = model._flatten_layers()  # noqa: SLF001
    return layers


def is_synchronized(model: keras.Layer) -> bool:
    """Whether a layer of it takes statistics of the batches of all replicas together."""
    return any(getattr(layer, "synchronized", False) for layer in all_layers(model))


def say_of_unsafe_gradients(network: keras.Layer) -> None:
    """Warns of layers of Keras' own whose gradients TensorFlow computes beyond its memory; see UNSAFE_BELOW."""
    with_onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", str(int(has_avx512()))) not in ("0", "false")
    if not with_onednn or tf.config.list_physical_devices("GPU"):
        return
    names = [layer.name for layer in all_layers(network) if _is_unsafe(layer)]
    if names:
        print(
            f"warning: {', '.join(names)}: for odd batches TensorFlow's gradient of strided 1x1 convolutions of fewer "
            f"than {UNSAFE_BELOW} channels writes beyond its memory on this CPU, which may end the process or change "
            "numbers; set TF_ENABLE_ONEDNN_OPTS=0 in the environment.",
            file=sys.stderr,
        )


def _is_unsafe(layer: keras.Layer) -> bool:
    kind = keras.layers.Conv2D
    if not isinstance(layer, kind) or type(layer).convolution_op is not kind.convolution_op or not layer.built:
        return False
    return layer.kernel_size == (1, 1) and max(layer.strides) > 1 and layer.kernel.shape[2] < UNSAFE_BELOW
