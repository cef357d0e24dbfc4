"""What a model and settings have to be for `perturbed`."""

import keras

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
