"""Adversarially robust image classifiers, trained with adversarial weight perturbation."""

__version__ = "0.1.0"
