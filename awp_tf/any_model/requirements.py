"""What a model and settings have to be for `perturbed`."""

import keras
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
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
    if type(network).train_step is not keras.Model.train_step:
        raise UserError(
            f"model: expected Keras' own train_step, received that of {type(network).__name__}; compute_loss, "
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
    synchronized = any(getattr(layer, "synchronized", False) for layer in network._flatten_layers())  # noqa: SLF001
    if attack is not None and synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise UserError(
            f"attack: expected no synchronized BatchNormalization on several devices, received {network.name!r}; "
            "say synchronized=False, or train without an attack."
        )
