"""A network as a pure function of explicit weights: nothing is read from or written to a variable."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled

from awp_tf.infra.errors import UserError
from awp_tf.infra.keras_layers import all_layers, is_synchronized
from awp_tf.loss_scale import PER_IMAGE, all_entered, scaling
from awp_tf.losses import correct, misclassified
from awp_tf.prepared import prepared, using
from awp_tf.types import Predict, Weights


def bind(network: keras.Model, weights: Weights, state: Weights, *, training: bool) -> Predict:
    """The network at weights and state: images [B, H, W, C] to logits [B, K].

    In training mode BatchNorm uses the statistics of the batch; no running statistic moves.
    """
    by = scaling(network)
    weights = all_entered(by, weights)
    ready = prepared(network, zip(network.trainable_variables, weights, strict=True))

    def predict(x: tf.Tensor) -> tf.Tensor:
        with using(ready):
            return by.leave(network.stateless_call(weights, state, by.enter(x), training=training)[0])

    return predict


def predictor(network: keras.Model) -> Predict:
    """The network as it stands, in evaluation mode.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.functional import predictor
        >>> from awp_tf.networks import small_cnn
        >>> predict = predictor(small_cnn(shape=(8, 8, 1), classes=10))
        >>> predict(tf.zeros([2, 8, 8, 1])).shape.as_list()
        [2, 10]
    """
    weights, state = read(network.trainable_variables), read(network.non_trainable_variables)
    return bind(network, weights, state, training=False)


def robust(predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Which images count as robust, bool [B]: those classified correctly before the attack, and not fooled by it.

    This is what robust accuracy means everywhere: an attack that happens to put a wrong image right earns nothing.
    """
    return correct(predict(x), labels) & ~misclassified(predict(x_adv), labels)


class Recorder:
    """Like bind in training mode, but each call moves the running statistics held in `state`.

    For one trace of one function only: do not carry it across tf.function boundaries or into loops.

    Attributes:
        state: The values of the network's non-trainable variables after the calls so far.
    """

    def __init__(
        self, network: keras.Model, weights: Weights, state: Weights, loss_scale: tf.Tensor | float = PER_IMAGE
    ) -> None:
        """Binds network to weights and state, in the order of its (non_)trainable_variables; see awp_tf.loss_scale."""
        self._network, self._by = network, scaling(network, loss_scale)
        self._weights = all_entered(self._by, weights)
        self.state = list(state)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Logits of x [B, H, W, C], shape [B, K]."""
        entered = self._by.enter(x)
        logits, self.state = self._network.stateless_call(self._weights, self.state, entered, training=True)
        return self._by.leave(logits)

    def with_features(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(Logits [B, K], what the last layer made them of [B, J]) of x [B, H, W, C].

        Raises:
            UserError: The network does not end in a dense layer without activation.
        """
        both = keras.Model(self._network.inputs, [self._network.outputs[0], _last_dense(self._network).input])
        with_its_weights = _in_order(both.trainable_variables, self._network.trainable_variables, self._weights)
        with_its_state = _in_order(both.non_trainable_variables, self._network.non_trainable_variables, self.state)
        entered = self._by.enter(x)
        (logits, features), state = both.stateless_call(with_its_weights, with_its_state, entered, training=True)
        self.state = _in_order(self._network.non_trainable_variables, both.non_trainable_variables, state)
        return self._by.leave(logits), self._by.leave(features)


def read(variables: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """The values of variables as tensors (the local copy, inside a replica)."""
    return [tf.convert_to_tensor(v.value) for v in variables]


def require_classifier(name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raises UserError unless symbolic tensors or specs are those of a classifier of images."""
    given, made = ([_sizes(t) for t in tensors] for tensors in (inputs, outputs))
    fit = len(given) == len(made) == 1 and len(given[0]) == 4 and len(made[0]) == 2
    if not fit or given[0][0] is not None or None in given[0][1:] or (made[0][1] or 0) < 2:
        raise UserError(
            f"{name}: expected a network from images [B, H, W, C] of fixed size, B open, to logits [B, K], K >= 2, "
            f"received one from {given} to {made}."
        )
    if not tf.as_dtype(inputs[0].dtype).is_floating:
        raise UserError(f"{name}: expected an input of floats in [0, 1], received {tf.as_dtype(inputs[0].dtype).name}.")


def require_network(network: keras.Model, name: str = "") -> None:
    """Raises UserError unless a network maps images [B, H, W, C] to one tensor [B, K]."""
    name = name or network.name
    inputs, outputs = (getattr(network, kind, None) or [] for kind in ("inputs", "outputs"))
    if not inputs:
        raise UserError(
            f"{name}: expected a network whose input is known; begin it with keras.Input([H, W, C]), or make it by "
            "keras.Model(inputs, outputs)."
        )
    if isinstance(getattr(network, "output", None), dict):
        raise UserError(f"{name}: expected one tensor of logits, received a dict; {_PART_OF_IT}")
    require_classifier(name, inputs, outputs)


def require_logits(network: keras.Model, name: str = "") -> None:
    """Raises UserError unless a network is a classifier of images that gives logits, not probabilities.

    It is shown four images of noise, in evaluation mode and as a pure function, so nothing in it changes.
    """
    require_network(network, name)
    noise = np.random.RandomState(0).uniform(size=(4, *network.inputs[0].shape[1:]))
    logits = np.asarray(predictor(network)(tf.constant(noise, network.inputs[0].dtype)), np.float64)
    probabilities = logits.min() >= -1e-6 and np.abs(logits.sum(axis=1) - 1).max() < 1e-2
    squashed = getattr(network.layers[-1], "activation", None) in (keras.activations.softmax, keras.activations.sigmoid)
    if probabilities or squashed:
        raise UserError(f"{name or network.name}: expected logits, received probabilities; {_PART_OF_IT}")


def compiled(function: Callable[..., Any], jit: bool) -> Callable[..., Any]:
    """A pure function compiled by XLA, or as it is."""
    return tf.function(function, jit_compile=True, autograph=False) if jit else function


def require_synchronizable(network: keras.Model, *, jit: bool, attacked: bool, in_parts: bool) -> None:
    """Raises UserError where statistics over all replicas would meet inside a compiled function or a loop.

    Args:
        network: Whose layers may be synchronized.
        jit: Whether XLA compiles its passes.
        attacked: Whether the attack's loop has passes in training mode.
        in_parts: Whether the loop over the parts of a batch has.
    """
    against = {
        "XLA (say xla=False)": jit,
        "an attack in training mode (say attack_in_training_mode=False)": attacked,
        "a batch in parts (say accumulation=1)": in_parts,
    }
    why = next((reason for reason, is_so in against.items() if is_so), None)
    if why and is_synchronized(network) and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise UserError(f"{network.name}: synchronized=True on several devices does not work with {why}.")


def require_smooth(network: keras.Model) -> None:
    """Raises UserError where second derivatives of a network in training mode are not what they seem.

    ReLU and its kin, and maximum pooling, have kinks, which derivatives do not see; Keras' own normalisations stop a
    gradient inside their variance (tf.nn.moments), so their first derivatives are right and their second ones wrong.
    """
    for layer in all_layers(network):
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        kind = type(layer).__name__
        if activation not in _SMOOTH or re.search(r"Normalization$|ReLU$|^ELU|MaxPool", kind):
            raise UserError(
                f'{network.name}: expected smooth layers for the estimator "hessian" (activation "silu", average '
                f'pooling, awp_tf.networks.layers.BatchNorm), received {layer.name} ({kind}); take "antithetic".'
            )


def uses_xla(xla: bool | str) -> bool:
    """What True, False and "auto" (where there is a GPU, and its kernels need not be deterministic) mean here."""
    if xla not in (True, False, "auto"):
        raise UserError(f'RobustTrainer.xla: expected True, False or "auto", received {xla!r}.')
    # XLA has no deterministic gradient of maximum pooling on a GPU, so that Keras does the same.
    auto = bool(tf.config.list_logical_devices("GPU")) and not is_op_determinism_enabled()
    return auto if xla == "auto" else bool(xla)


def _last_dense(network: keras.Model) -> keras.layers.Layer:
    last = network.layers[-1]
    if not isinstance(last, keras.layers.Dense) or last.activation is not keras.activations.linear:
        raise UserError(f"{network.name}: expected a network that ends in Dense(K) alone, received {last.name!r} last.")
    return last


def _in_order(wanted: Sequence[Any], variables: Sequence[Any], values: Weights) -> list[tf.Tensor]:
    """The values of wanted variables, which are the same ones in another order."""
    value_of = {id(variable): value for variable, value in zip(variables, values, strict=True)}
    return [value_of[id(variable)] for variable in wanted]


_SMOOTH = ("linear", "silu", "gelu", "softplus", "tanh", "sigmoid", "mish", "softmax")
_PART_OF_IT = "end it with Dense(K) alone, or give keras.Model(network.input, <the logits>)."


def _sizes(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tf.TensorShape(tensor.shape)) if tf.TensorShape(tensor.shape).rank is not None else ()
