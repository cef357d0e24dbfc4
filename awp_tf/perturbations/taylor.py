"""Randomised adversarial training via Taylor expansion (Jin et al., CVPR 2023): noise on the weights.

With u ~ N(0, S) the loss at noisy weights is l(w + u) = l + u'g + 1/2 u'Hu + o(|u|^2). Its zeroth, first and second
order terms are minimised with coefficients of their own. The released code holds none of this; for what it does hold,
see awp_tf.soft_labels.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from awp_tf import noise
from awp_tf.infra.errors import UserError, not_negative, one_of
from awp_tf.perturbations.base import Identity, Loss, Perturbation, Points
from awp_tf.types import Gradient, Weights

Line = Callable[[tf.Tensor], list[tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class RAT(Perturbation):
    """l + first |u'g| + second 1/2 u'Hu, per example, at the point where another perturbation leads.

    u is drawn anew at every step: of a kernel w_l with n_l numbers, N(0, (sigma ||w_l||)^2 / n_l) for each. E u'g = 0,
    so the first-order term counts by its size.

    Attributes:
        sigma: Expected ||u_l|| / ||w_l||, about; the released code's 1e-4 (absolute) changes nothing.
        first: Of the first-order term.
        second: Of the second-order term. With first = 0 and second = 1 the loss is that at w + u, on average; with both
            1 it is the larger one of those at w + u and w - u.
        estimator: "antithetic": both terms from the losses at w + u and w - u, which also sees the kinks of ReLU and
            takes 2 gradients (3 where second is not 1); "hessian": exact, by Hessian-vector products, for smooth
            networks, by four nested gradients; "single": the loss at w + u, 1 gradient, the coefficients play no part.
        around: Leads to the point; AWP makes this RAT-AWP. It climbs the loss without these terms.
        least_rank: Of the tensors that have noise.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.noise import make_seed
        >>> from awp_tf.perturbations import RAT
        >>> parabola = lambda weights: tf.reduce_sum(weights[0] ** 2, axis=1)  # a minimum: only u'Hu is left
        >>> loss = RAT(sigma=0.1).loss(parabola, [tf.zeros([1, 4]) + 1e-3], make_seed(0), tf.constant(1.0))
        >>> bool(loss > 4e-6)
        True
    """

    sigma: float = 0.1
    first: float = 1.0
    second: float = 1.0
    estimator: str = "antithetic"
    around: Perturbation = Identity()
    least_rank: int = 2

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        for name in ("sigma", "first", "second"):
            not_negative(f"RAT.{name}", getattr(self, name))
        one_of("RAT.estimator", self.estimator, _ESTIMATORS)
        if not isinstance(self.around, Perturbation) or isinstance(self.around, RAT):
            raise UserError(f"RAT.around: expected a perturbation such as @AWP() (not RAT), received {self.around!r}.")

    @property
    def is_idle(self) -> bool:
        """See Perturbation."""
        return float(self.sigma) == 0 and self.around.is_idle

    @property
    def bn_update(self) -> str:  # type: ignore[override]
        """That of the perturbation around which noise is drawn."""
        return self.around.bn_update

    @property
    def weight_decay_at(self) -> str:  # type: ignore[override]
        """That of the perturbation around which noise is drawn."""
        return self.around.weight_decay_at

    @property
    def needs_second_derivatives(self) -> bool:
        """Only the exact estimate does."""
        return self.estimator == "hessian"

    def __call__(self, weights: Weights, gradient: Gradient, seed: noise.Seed, start: Points | None = None) -> Points:
        """See Perturbation: where `around` leads."""
        return self.around(weights, gradient, seed, start)

    def everywhere(self) -> "RAT":
        """See Perturbation."""
        return dataclasses.replace(self, around=self.around.everywhere(), least_rank=0)

    def loss(self, loss: Loss, weights: Weights, seed: noise.Seed, begun: tf.Tensor) -> tf.Tensor:
        """See Perturbation."""
        noises = [begun * self._noise(w, seed.fold(layer)) for layer, w in enumerate(weights)]
        return _ESTIMATORS[self.estimator](self, loss, weights, noises)

    def _noise(self, weight: tf.Tensor, seed: noise.Seed) -> tf.Tensor:
        if weight.shape.rank < self.least_rank:
            return tf.zeros_like(weight)
        each = self.sigma * tf.norm(weight) / weight.shape.num_elements() ** 0.5
        return tf.stop_gradient(each * noise.normal(seed, weight))


def antithetic(rat: RAT, loss: Loss, weights: Weights, noises: Weights) -> tf.Tensor:
    """The terms from a pair: |l(w + u) - l(w - u)| / 2 and (l(w + u) + l(w - u)) / 2 - l."""
    there = loss([w + u for w, u in zip(weights, noises, strict=True)])
    back = loss([w - u for w, u in zip(weights, noises, strict=True)])
    terms = rat.first * tf.abs(there - back) / 2 + rat.second * (there + back) / 2
    # l itself cancels where second is 1.
    return terms if _is_one(rat.second) else terms + (1 - rat.second) * loss(weights)


def hessian(rat: RAT, loss: Loss, weights: Weights, noises: Weights) -> tf.Tensor:
    """The terms themselves: derivatives at t = 0 of the loss of each example at w + t u."""
    line = _with_derivative(lambda t: [loss([w + t * u for w, u in zip(weights, noises, strict=True)])])
    here, slope, curvature = _with_derivative(line)(tf.zeros([], weights[0].dtype))
    return here + rat.first * tf.abs(slope) + rat.second * curvature / 2


def _with_derivative(function: Line) -> Line:
    """Adds to what a function of a number gives the derivative of the last of it, [B].

    Forward mode as reverse over reverse: d/dt of sum v_i f_i(t) is linear in v, and its gradient in v is f'(t).
    TensorFlow's ForwardAccumulator, nested, gives the same f' and f'', whose gradients in the weights are wrong.
    """

    def both(t: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(t)
                values = function(t)
                v = tf.ones_like(values[-1])
                outer.watch(v)
                total = tf.reduce_sum(v * values[-1])
            slope = inner.gradient(total, t, unconnected_gradients="zero")
        return [*values, outer.gradient(slope, v, unconnected_gradients="zero")]

    return both


def single(rat: RAT, loss: Loss, weights: Weights, noises: Weights) -> tf.Tensor:
    """The loss at w + u."""
    return loss([w + u for w, u in zip(weights, noises, strict=True)])


def _is_one(coefficient: float | tf.Tensor) -> bool:
    return not tf.is_tensor(coefficient) and coefficient == 1


_ESTIMATORS = {"antithetic": antithetic, "hessian": hessian, "single": single}
