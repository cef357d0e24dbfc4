"""Sharpness-aware minimisation, and its adaptive form; both move all parameters, BatchNorm's included."""

import dataclasses

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import not_negative, one_of
from awp_tf.perturbations.base import BN_UPDATES, Perturbation, Points
from awp_tf.types import Gradient, Weights


@dataclasses.dataclass(frozen=True)
class SAM(Perturbation):
    """Sharpness-aware minimisation (Foret et al., ICLR 2021, eq. 2): v = rho g / ||g||, over all parameters together.

    With clean images it alone makes a network somewhat robust (Wei et al., arXiv 2305.05392); with an attack it is
    SAM + AT. As in davda54/sam and weizeming/SAM_AT, v is found without weight decay, which is taken at the weights
    themselves; google-research/sam has it in the loss of both passes.

    Attributes:
        rho: ||v||, 0.05 in the paper for CIFAR-10.
        bn_update: See Perturbation; "both" in the code of SAM for robustness.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import SAM
        >>> weights = [tf.zeros([2]), tf.zeros([1])]
        >>> (nearby,) = SAM(rho=0.5)(weights, lambda at: [tf.constant([0.0, 4.0]), tf.constant([3.0])], make_seed(0))
        >>> print(*(w.numpy().round(3) for w in nearby))
        [0.  0.4] [0.3]
    """

    rho: float = 0.05
    bn_update: str = "clean"
    weight_decay_at = "centre"

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        not_negative(f"{type(self).__name__}.rho", self.rho)
        one_of(f"{type(self).__name__}.bn_update", self.bn_update, BN_UPDATES)

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.rho) == 0

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation; start is where the gradient is taken, the ball stays that around weights."""
        scales = [self._scale(w) for w in weights]
        gradients = gradient(weights if start is None else start[0])
        scaled = [t * g for t, g in zip(scales, gradients, strict=True)]
        factor = self.rho / (tf.linalg.global_norm(scaled) + 1e-12)
        return [[w + factor * t * s for w, t, s in zip(weights, scales, scaled, strict=True)]]

    def _scale(self, weight: tf.Tensor) -> tf.Tensor:
        """T of ||T^-1 v|| <= rho, as a diagonal."""
        return tf.ones([], weight.dtype)


@dataclasses.dataclass(frozen=True)
class ASAM(SAM):
    """Adaptive SAM (Kwon et al., ICML 2021, eq. 5): v = rho T^2 g / ||T g||, T = |w| + eta.

    With eta = 0 it does not see the scale of a layer that its successor undoes; its authors' code adds 0.01 to the
    kernels' T, so that weights of zero move, too.

    Attributes:
        rho: ||v / T||; 0.5 in the paper for CIFAR-10, ten times SAM's.
        bn_update: See Perturbation.
        eta: Added to every |w|.
    """

    rho: float = 0.5
    eta: float = 0.0

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        super().__post_init__()
        not_negative("ASAM.eta", self.eta)

    def _scale(self, weight: tf.Tensor) -> tf.Tensor:
        return tf.abs(weight) + self.eta
