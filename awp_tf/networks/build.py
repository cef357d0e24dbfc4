"""Networks from the functions that make them, a person's own among them."""

import inspect
from collections.abc import Callable, Sequence

import keras

from awp_tf.infra.errors import UserError


def build(make: Callable[..., keras.Model], shape: Sequence[int], classes: int) -> keras.Model:
    """The network that a function makes.

    Args:
        make: Called with shape and classes, by name.
        shape: Height, width and channels of the images.
        classes: How many logits are needed.

    Raises:
        UserError: The function does not take these, or gives no network.
    """
    name = getattr(make, "__name__", repr(make))
    try:
        inspect.signature(make).bind_partial(shape=shape, classes=classes)
    except TypeError as error:
        raise UserError(
            f"{name}: expected a function of shape and classes that makes a network, as small_cnn is; {error}."
        ) from error
    network = make(shape=shape, classes=classes)
    if not isinstance(network, keras.Model):
        raise UserError(f"{name}: expected a function that returns a keras.Model, received {network!r}.")
    return network
