"""Commands: python -m pipelines.<name>."""

from pipelines import _quiet  # noqa: F401  (before anything else imports TensorFlow)
