"""Scripts around the product."""

from pipelines import _quiet  # noqa: F401  (before anything else imports TensorFlow)
