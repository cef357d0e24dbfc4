"""Adversarially robust image classifiers in TensorFlow; `perturbed` gives any Keras model their weight perturbation."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["perturbed"]


def __getattr__(name: str) -> Any:
    """`awp_tf.perturbed`, once it is asked for: TensorFlow takes seconds to import."""
    if name == "perturbed":
        from awp_tf.any_model import perturbed  # noqa: PLC0415

        return perturbed
    raise AttributeError(f"module 'awp_tf' has no attribute {name!r}")
