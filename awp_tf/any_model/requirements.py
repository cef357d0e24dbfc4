"""What a model and settings have to be for `perturbed`."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.infra.keras_layers import is_synchronized
from awp_tf.perturbations import Perturbation


def require_plain(network: keras.Model) -> None:
    """Raises UserError unless a model is built and trains by Keras' own train_step."""
    if not isinstance(network, keras.Model):
        raise UserError(f"model: expected a keras.Model, received {network!r}.")
    if not network.built or not network.variables:
        raise UserError(
            f"model: expected one that is built, received {network.name!r} without weights; give it a keras.Input, or "
            "call it on a batch."
        )
    for name in ("train_step", "fit"):
        if getattr(type(network), name) is not getattr(keras.Model, name) or name in vars(network):
            raise UserError(
                f"model: expected Keras' own {name}, received that of {type(network).__name__}; compute_loss, "
                "compute_metrics and add_loss can hold what it does."
            )


def require_settings(perturbation: Perturbation, attack: PGD | None, on: str | None) -> None:
    """Raises UserError unless they are objects of the right kind that go together."""
    if not isinstance(perturbation, Perturbation):
        raise UserError(
            f"perturbation: expected AWP(...), SAM(...) or another Perturbation, received {perturbation!r}."
        )
    if attack is not None and not isinstance(attack, PGD):
        raise UserError(f"attack: expected PGD(...) or FGSM(...), received {attack!r}.")
    if attack is None and on is not None:
        raise UserError(f"on: expected an attack, too, received on={on!r} alone; say attack=PGD(...).")


def require_trainable(network: keras.Model) -> None:
    """Raises UserError where there is nothing to train."""
    if not network.trainable_variables:
        raise UserError(f"model: expected weights to train, received {network.name!r} with all of them frozen.")


def require_no_meeting(network: keras.Model, attack: PGD | None) -> None:
    """Raises UserError where statistics over all replicas would meet inside the loop of an attack."""
    if attack is not None and is_synchronized(network) and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise UserError(
            f"attack: expected no synchronized BatchNormalization on several devices, received {network.name!r}; "
            "say synchronized=False, or train without an attack."
        )


def require_no_write(network: keras.Model, written: Sequence[keras.Variable]) -> None:
    """Raises UserError where a pass writes a weight that is trained: there would be two opinions about its value."""
    paths = [v.path for v in written if any(v is trained for trained in network.trainable_variables)]
    if paths:
        raise UserError(
            f"model: expected layers that do not write trained weights in their call, received {', '.join(paths)} "
            "(SpectralNormalization does so)."
        )


def require_connected(network: keras.Model, connected: Sequence[bool], loss: Callable[[], tf.Tensor]) -> None:
    """Raises UserError where a weight has a gradient in plain training, and has none at explicit weights.

    That is so in layers that keep a function of their own from an earlier pass, or recompute it.

    Args:
        network: The model.
        connected: Which trainable variables have a gradient, as the step was traced.
        loss: That of plain training; it is traced where some have none, and never run.
    """
    if all(connected):
        return
    variables = [v.value for v in network.trainable_variables]
    found: list[object] = []

    def probe() -> None:
        with tf.GradientTape() as tape:
            value = loss()
        found.extend(tape.gradient(value, variables))

    tf.function(probe, autograph=False).get_concrete_function()
    lost = zip(network.trainable_variables, connected, found, strict=True)
    paths = [v.path for v, holds, gradient in lost if not holds and gradient is not None]
    if paths:
        raise UserError(
            f"model: expected layers without tf.function and keras.remat, received {', '.join(paths)}, of whose "
            "gradient they keep the first; take these away: fit compiles the whole step in any case."
        )
