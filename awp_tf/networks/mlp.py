"""A multi-layer perceptron without biases, the network of permuted pixels."""

from collections.abc import Sequence

import keras

from awp_tf.infra.errors import UserError, at_least
from awp_tf.networks.bias_free import dense_head
from awp_tf.networks.layers import normalized_images, torch_init


def mlp(
    *,
    shape: Sequence[int],
    classes: int,
    hidden: Sequence[int] = (100, 100),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalize: bool = True,
) -> keras.Model:
    """Images in [0, 1] to logits: dense layers with ReLU, without biases (Deng et al., NeurIPS 2021).

    Args:
        shape: Height, width, channels.
        classes: How many logits.
        hidden: Neurons of each hidden layer.
        mean: Subtracted from the pixels, per channel.
        std: Divides them.
        normalize: False leaves the pixels as they are, whatever mean and std are.

    Raises:
        UserError: A size is too small.

    Example:
        >>> from awp_tf.networks import mlp
        >>> network = mlp(shape=(8, 8, 1), classes=10)
        >>> network.output.shape, network.count_params()
        ((None, 10), 17400)
    """
    at_least("mlp.classes", classes, 2)
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise UserError(f"mlp.hidden: expected the neurons of each hidden layer, as (100, 100), received {hidden!r}.")
    inputs, x = normalized_images(shape, mean, std, normalize=normalize)
    for size in hidden:
        at_least("mlp.hidden", size, 1)
    sizes = {f"dense{number}": size for number, size in enumerate(hidden, start=1)}
    return keras.Model(inputs, dense_head(x, sizes, classes, torch_init), name="mlp")
