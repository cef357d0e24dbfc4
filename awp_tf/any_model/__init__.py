"""Weight perturbation for any Keras model: `perturbed` wraps one, and compile, fit and callbacks stay as they are."""

from awp_tf.any_model.perturbed import PerturbedModel, perturbed

__all__ = ["PerturbedModel", "perturbed"]
