"""What a served network answers to: raw pixels, encoded images, floats; raw pixels of one task."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from awp_tf.data.folders import resize
from awp_tf.export.heads import Head
from awp_tf.export.settings import Limits
from awp_tf.networks.convolution import as_keras_does

Answer = dict[str, tf.Tensor]

DEFAULT, BYTES, FLOAT = "serving_default", "serving_bytes", "serving_float"


class ServingModule:
    """A network with its signatures.

    Attributes:
        module: Tracks the network's variables and nothing else; what is saved.
    """

    def __init__(
        self, network: keras.Model, class_names: Sequence[str], limits: Limits, heads: Sequence[Head] = ()
    ) -> None:
        """Nothing is traced yet.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K]; called in evaluation mode.
            class_names: In the order of the logits; empty where unknown.
            limits: For encoded images.
            heads: Of tasks, each of which gets a signature.
        """
        self._network, self._class_names, self._limits = network, list(class_names), limits
        self._heads = heads
        self._shape = tuple(network.input_shape[1:])
        self._dtype = network.inputs[0].dtype
        self.module = tf.Module()
        self.module.weights = [variable.value for variable in network.variables]

    def signatures(self, *, floats: bool) -> dict[str, Callable[..., Answer]]:
        """Functions by signature name, each with its own kind of input.

        Args:
            floats: Whether there is one for floats in [0, 1], too.
        """
        pixels = tf.TensorSpec([None, *self._shape], tf.uint8, name="images")
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        real = tf.TensorSpec([None, *self._shape], self._dtype, name="images")

        @tf.function(input_signature=[pixels], autograph=False)
        def serving_default(images: tf.Tensor) -> Answer:
            return self._answer(images)

        @tf.function(input_signature=[encoded], autograph=False)
        def serving_bytes(image_bytes: tf.Tensor) -> Answer:
            return self._answer(decode(image_bytes, self._shape, self._limits))

        @tf.function(input_signature=[real], autograph=False)
        def serving_float(images: tf.Tensor) -> Answer:
            inside = tf.reduce_all((images >= 0) & (images <= 1))
            check = tf.debugging.Assert(inside, ["images: expected values in [0, 1], received others."])
            with tf.control_dependencies([check]):
                return self._answer(tf.identity(images))

        found = {DEFAULT: serving_default, BYTES: serving_bytes, **({FLOAT: serving_float} if floats else {})}
        return {**found, **self._of_tasks(pixels)}

    def _of_tasks(self, pixels: tf.TensorSpec) -> dict[str, Callable[..., Answer]]:
        # All tasks call one function: the network is written once more, not once a task.
        whole = tf.function(self._logits, input_signature=[pixels], autograph=False)

        def of_task(head: Head) -> Callable[..., Answer]:
            @tf.function(input_signature=[pixels], autograph=False)
            def serving_task(images: tf.Tensor) -> Answer:
                logits = tf.gather(whole(images), head.classes, axis=-1)
                return _answer_of(logits, head.class_names, head.classes)

            return serving_task

        return {head.signature: of_task(head) for head in self._heads}

    def _answer(self, images: tf.Tensor) -> Answer:
        logits = self._logits(images)
        return _answer_of(logits, self._class_names, range(logits.shape[-1]))

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        """Of all classes, for uint8 or float images."""
        # A placeholder's shape is not enforced when the graph runs; this is.
        images = tf.ensure_shape(images, [None, *self._shape])
        count = tf.shape(images)[0]
        # Some kernels fail on no images at all: one of zeros takes their place and is cut off again.
        images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        x = tf.cast(images, self._dtype) / 255 if images.dtype == tf.uint8 else images
        with as_keras_does():
            return tf.cast(self._network(x, training=False), tf.float32)[:count]


def _answer_of(logits: tf.Tensor, class_names: Sequence[str], classes: Sequence[int]) -> Answer:
    """Logits and what follows from them; a class has one id, whichever signature is asked."""
    places = tf.argmax(logits, axis=-1)
    ids = tf.gather(tf.constant(list(classes), tf.int64), places)
    answer = {"logits": logits, "probabilities": tf.nn.softmax(logits), "class_ids": ids}
    if class_names:
        answer["class_names"] = tf.gather(tf.constant(list(class_names)), places)
    return {name: tf.identity(value, name=name) for name, value in answer.items()}


def decode(image_bytes: tf.Tensor, shape: Sequence[int], limits: Limits) -> tf.Tensor:
    """Encoded images [B] as uint8 [B, H, W, C], resized as the data were that the network learnt from.

    Args:
        image_bytes: PNG or JPEG files; grey, colour or palette, transparency is dropped.
        shape: (H, W, C) of the network; C is 1 or 3.
        limits: What is refused.
    """
    height, width, channels = shape

    def decode_file(content: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies(_refuse(content, limits)):
            content = tf.identity(content)
        image = tf.io.decode_image(content, channels=channels, expand_animations=False)
        image = tf.ensure_shape(image, [None, None, channels])
        return tf.ensure_shape(resize(image, height, width), shape)

    return tf.map_fn(decode_file, image_bytes, fn_output_signature=tf.uint8)


def _refuse(content: tf.Tensor, limits: Limits) -> list[tf.Operation]:
    """Looks at a file's size, kind and header."""
    small = tf.debugging.Assert(
        tf.strings.length(content) <= limits.largest_file,
        [f"image_bytes: expected at most {limits.largest_file} bytes, received", tf.strings.length(content)],
    )
    png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
    jpeg = tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff"
    known = tf.debugging.Assert(png | jpeg, ["image_bytes: expected a PNG or JPEG image, received something else."])
    with tf.control_dependencies([small, known]):
        size = tf.cond(png, lambda: _png_size(content), lambda: tf.io.extract_jpeg_shape(content)[:2])
    inside = tf.reduce_all((size >= limits.smallest_side) & (size <= limits.largest_side))
    message = f"image_bytes: expected sides of {limits.smallest_side} to {limits.largest_side} pixels, received (h, w)"
    return [tf.debugging.Assert(inside, [message, size])]


def _png_size(content: tf.Tensor) -> tf.Tensor:
    """(Height, width) of the IHDR chunk: two big-endian integers at byte 16, if it comes first.

    Decoders accept others before it, so that is asked for: elsewhere bytes 16 to 24 are what their author likes.
    """
    whole = tf.strings.length(content) >= 24
    first = tf.strings.substr(content, 8, 8) == b"\x00\x00\x00\x0dIHDR"
    message = "image_bytes: expected a whole PNG image, its header first."
    with tf.control_dependencies([tf.debugging.Assert(whole & first, [message])]):
        size = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(size, axis=[0])
