"""Weight-loss landscapes: the adversarial loss at weights moved along chosen directions, and what it says."""
