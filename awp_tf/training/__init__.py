"""Training from end to end: `train`, the root function that a gin file configures, and its parts."""
