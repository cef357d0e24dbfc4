"""Any network of keras.applications, from [0, 1] pixels to logits of other classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError, first_line, one_of
from awp_tf.infra.files import local
from awp_tf.networks.heads import train_last, with_head
from awp_tf.networks.layers import CHANNELS_LAST, Normalize, at_least_float32

# What the modules of keras.applications call the mode of their preprocess_input; "inside" is done by the network.
_BY_MODE = {
    "tf": (
        *("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "NASNetLarge", "NASNetMobile"),
        *("ResNet50V2", "ResNet101V2", "ResNet152V2", "Xception"),
    ),
    "torch": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
    "inside": (
        *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
        *(f"EfficientNetB{number}" for number in range(8)),
        *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        *("MobileNetV3Small", "MobileNetV3Large"),
    ),
}
MODES = {name: mode for mode, names in _BY_MODE.items() for name in names}
_BGR_MEAN = (103.939, 116.779, 123.68)


def application(
    *,
    shape: Sequence[int],
    classes: int,
    name: str = "MobileNetV3Small",
    weights: str | None = None,
    trainable: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A network of keras.applications with its own preprocessing in front and a new last layer.

    Its features are averaged over the image. They are made for images of 224 or so: of 32, most of these networks keep
    a single place. Their BatchNorm is Keras', whose running statistics move by 0.01 a step, those of MobileNetV2 and V3
    by 0.001: a short run is evaluated with what is left of their start, unless they are measured anew
    (awp_tf.averaging.EMA, statistics="recalibrated").

    Args:
        shape: Height, width, channels of the images; 3 channels.
        classes: How many logits.
        name: As keras.applications calls it: ResNet50, MobileNetV3Small, ConvNeXtTiny, ...
        weights: "imagenet" (downloaded by Keras, once), a file of weights of that network without its last layer
            (.h5, .keras), or None, which starts anew.
        trainable: How many of the last layers with weights are trained, the new one included, BatchNorm counting as
            one; None is all.
        settings: Whatever else that network takes, for instance {"alpha": 0.25} of MobileNet.

    Raises:
        UserError: There is no such network or no such weights, or they do not fit images or settings.

    Example:
        >>> from awp_tf.networks import application
        >>> network = application(shape=(32, 32, 3), classes=10, name="MobileNet", settings={"alpha": 0.25})
        >>> network.output.shape
        (None, 10)
    """
    one_of("application.name", name, MODES)
    _require_images(name, tuple(shape))
    inputs = keras.Input(tuple(shape), name="images", dtype=at_least_float32())
    body = _body(name, preprocess(inputs, MODES[name]), tuple(shape), weights, settings or {})
    network = with_head(inputs, body.output, classes, name=body.name)
    train_last(network, trainable, name="application.trainable")
    return network


def preprocess(x: Any, mode: str) -> Any:
    """Images in [0, 1] as a network of keras.applications wants them: preprocess_input of its module.

    Args:
        x: Symbolic images, [B, H, W, 3].
        mode: "tf" gives [-1, 1]; "torch" ImageNet's mean and standard deviation; "caffe" BGR in [0, 255] less the
            mean; "inside" [0, 255].
    """
    options = {"dtype": at_least_float32(), "name": "normalize"}
    if mode == "tf":
        return keras.layers.Rescaling(2.0, -1.0, **options)(x)
    if mode == "torch":
        return Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), **options)(x)
    if mode == "caffe":
        x = ReverseChannels(dtype=options["dtype"], name="bgr")(x)
        return Normalize([mean / 255 for mean in _BGR_MEAN], [1 / 255], **options)(x)
    return keras.layers.Rescaling(255.0, **options)(x)


@keras.saving.register_keras_serializable(package="awp_tf")
class ReverseChannels(keras.layers.Layer):
    """RGB to BGR."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Turns the order of the channels of x [B, H, W, C] round."""
        return tf.reverse(x, [-1])


def _require_images(name: str, shape: tuple[int, ...]) -> None:
    if shape[-1] != 3:
        raise UserError(f"application: {name} expects images of 3 channels, received {shape}; repeat a grey one.")
    if keras.config.image_data_format() != CHANNELS_LAST:
        raise UserError(
            f"application: expected Keras to put channels last, received {keras.config.image_data_format()}; "
            "change image_data_format in ~/.keras/keras.json."
        )


def _body(
    name: str, images: Any, shape: tuple[int, ...], weights: str | None, settings: Mapping[str, Any]
) -> keras.Model:
    """Images to features [B, D]."""
    file = None if weights in (None, "imagenet") else _weights_file(str(weights))
    try:
        body = getattr(keras.applications, name)(
            include_top=False,
            weights=None if file else weights,
            input_tensor=images,
            input_shape=shape,
            pooling="avg",
            **settings,
        )
        if file:
            body.load_weights(file)
    except Exception as error:  # a download that fails raises a bare one
        raise UserError(
            f"application: {name} cannot be made for images {shape} with weights {weights!r} and settings "
            f"{dict(settings)}: {first_line(error)}"
        ) from error
    _keep_pixels(body)
    return body


def _weights_file(text: str) -> str:
    file = local(text)
    if not file.is_file() or file.suffix not in (".h5", ".keras"):
        raise UserError(f"application.weights: expected None, 'imagenet', or an .h5 or .keras file, received {text!r}.")
    return str(file)


def _keep_pixels(body: keras.Model) -> None:
    """What prepares pixels inside of a network does so in 32 bits: 16 cannot tell 254 from 255."""
    for layer in body.layers:
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
            layer.dtype_policy = at_least_float32()
