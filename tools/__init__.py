"""Scripts around the product."""

import pipelines  # noqa: F401  (before anything else imports TensorFlow)
