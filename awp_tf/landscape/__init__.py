"""Weight-loss landscapes: the adversarial loss at weights moved along chosen directions, and what it says."""

from awp_tf.landscape.draw import View, draw
from awp_tf.landscape.passes import Passes
from awp_tf.landscape.settings import Landscape
from awp_tf.landscape.survey import weight_landscape

__all__ = ["Landscape", "Passes", "View", "draw", "weight_landscape"]
