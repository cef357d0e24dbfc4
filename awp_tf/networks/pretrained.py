"""A network of a file, as it is, or with a new head, to be fine-tuned (Hendrycks et al., ICML 2019)."""

from collections.abc import Sequence

import keras

from awp_tf.functional import require_logits, require_network
from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.networks.classifier import keras_file
from awp_tf.networks.heads import train_last, with_head
from awp_tf.networks.layers import at_least_float32


def pretrained(*, shape: Sequence[int], classes: int, path: str, trainable: int | None = None) -> keras.Model:
    """A trained network whose last layer is replaced by a new one for other classes.

    Its own normalisation stays as it was trained, and its layers compute in the types that the file says. Layers that
    are frozen keep their weights and their statistics, and are not perturbed.

    Args:
        shape: Height, width, channels of the images.
        classes: How many logits.
        path: A .keras file, read in safe mode; for instance best.keras of a run.
        trainable: How many of the last layers with weights are trained, the new one included, BatchNorm counting as
            one; 1 is the new one only, None is all.

    Raises:
        UserError: The file cannot be read, takes images of another shape or type, does not end with Dense without an
            activation, or has fewer layers.
    """
    network = _read("pretrained.path", path, tuple(shape))
    tuned = with_head(network.inputs[0], _features(network, str(path)), classes, name=network.name)
    train_last(tuned, trainable, name="pretrained.trainable")
    return tuned


def from_file(*, shape: Sequence[int], classes: int, path: str, trainable: int | None = None) -> keras.Model:
    """A trained network as it is, its last layer too, to be trained on; pretrained gives it a new one.

    Its own normalisation stays as it was trained, and its layers compute in the types that the file says.

    Args:
        shape: Height, width, channels of the images.
        classes: How many logits.
        path: A .keras file, read in safe mode; for instance best.keras of a run.
        trainable: How many of the last layers with weights are trained, BatchNorm counting as one; None is all, those
            too that were frozen when the file was written.

    Raises:
        UserError: The file cannot be read, takes images of another shape or type, has another number of classes, gives
            probabilities, or has fewer layers.

    Example:
        >>> import pathlib, tempfile
        >>> from awp_tf.networks import from_file, small_cnn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "first.keras"
        ...     small_cnn(shape=(8, 8, 1), classes=10).save(file)
        ...     from_file(shape=(8, 8, 1), classes=10, path=str(file)).name
        'small_cnn'
    """
    network = _read("from_file.path", path, tuple(shape))
    require_logits(network, str(path))
    made = network.outputs[0].shape[-1]
    if made != classes:
        raise UserError(
            f"{path}: expected a network for the {classes} classes of the data, received one for {made}; "
            "gin/networks/pretrained.gin gives it a new last layer."
        )
    train_last(network, trainable, name="from_file.trainable")
    return network


def _read(setting: str, path: str, shape: tuple[int, ...]) -> keras.Model:
    file = local(path)
    if not file.is_file() or file.suffix != ".keras":
        raise UserError(f"{setting}: expected a .keras file, received {str(path)!r}.")
    network = keras_file(file)
    require_network(network, str(path))
    _require_images(network, str(path), shape)
    return network


def _require_images(network: keras.Model, path: str, shape: tuple[int, ...]) -> None:
    taken = network.inputs[0]
    if tuple(taken.shape[1:]) != shape:
        raise UserError(
            f"{path}: expected a network for images of shape {shape}, as the data's, received one for "
            f"{tuple(taken.shape[1:])}."
        )
    wide = at_least_float32()
    if keras.backend.standardize_dtype(taken.dtype) != wide:
        raise UserError(
            f"{path}: expected a network that takes {wide}, as this run computes, received one that takes "
            f"{taken.dtype}; train both in the same precision."
        )


def _features(network: keras.Model, path: str) -> object:
    """What feeds the last layer."""
    last = network.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.output is not network.outputs[0]:
        raise UserError(
            f"{path}: expected a network that ends with Dense, whose place a new one takes; received one that ends "
            f"with {type(last).__name__} ({last.name})."
        )
    if last.activation is not keras.activations.linear:
        raise UserError(
            f"{path}: expected a network that ends with logits, received one whose last layer has the activation "
            f"{keras.activations.serialize(last.activation)}; save it without."
        )
    return last.input
