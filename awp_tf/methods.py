"""Training methods: what the attack maximises, and what the optimizer minimises.

`objective` is the inner problem, `loss` the outer one, both per image; the trainer takes the (weighted) mean
over the batch. AWP climbs the same outer loss that the optimizer descends. Each call of `predict` in `loss`
moves the BatchNorm statistics once, in the order of the calls, which is that of the references.
"""

import dataclasses
from typing import Protocol

import tensorflow as tf

from awp_tf.infra.errors import not_negative
from awp_tf.losses import boosted_cross_entropy, cross_entropy, kl_divergence, mart_regularizer
from awp_tf.types import Objective, Predict


class Method(Protocol):
    """Inner objective and outer loss.

    Attributes:
        attack_in_training_mode: Whether BatchNorm uses batch statistics while the attack runs
            (and only then: the outer loss always does).
    """

    @property
    def attack_in_training_mode(self) -> bool:
        """See the class."""
        ...

    def objective(self, predict: Predict, x: tf.Tensor, y: tf.Tensor) -> Objective:
        """What the attack maximises: images [B, H, W, C] to a value per image [B]."""
        ...

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """What training minimises, per image, [B]."""
        ...


@dataclasses.dataclass(frozen=True)
class Standard:
    """Ordinary training on clean images; pair it with the attack Clean()."""

    attack_in_training_mode: bool = False

    def objective(self, predict: Predict, x: tf.Tensor, y: tf.Tensor) -> Objective:
        """Cross-entropy."""
        return lambda z: cross_entropy(predict(z), y)

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cross-entropy on clean images."""
        return cross_entropy(predict(x), y)


@dataclasses.dataclass(frozen=True)
class AT:
    """Adversarial training, PGD-CE (Madry et al., ICLR 2018, eq. 2.1).

    Attributes:
        attack_in_training_mode: True as in the AWP authors' AT code; False couples no two images of
            a batch, at about the same cost.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.methods import AT
        >>> predict, x, y = lambda x: tf.reshape(x, [-1, 2]), tf.zeros([1, 1, 2, 1]), tf.constant([0])
        >>> print(AT().loss(predict, x, x_adv=x, y=y).numpy().round(3))  # one value an example
        [0.693]
    """

    attack_in_training_mode: bool = True

    def objective(self, predict: Predict, x: tf.Tensor, y: tf.Tensor) -> Objective:
        """Cross-entropy."""
        return lambda z: cross_entropy(predict(z), y)

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Cross-entropy on adversarial images."""
        return cross_entropy(predict(x_adv), y)


@dataclasses.dataclass(frozen=True)
class TRADES:
    """CE(f(x), y) + beta KL(p(x) || p(x')) (Zhang et al., ICML 2019, eq. 5).

    Attributes:
        beta: The weight of robustness against accuracy.
        attack_in_training_mode: False as in the authors' code.

    Example:
        >>> import tensorflow as tf
        >>> from awp_tf.methods import TRADES
        >>> predict, x, y = lambda x: tf.reshape(x, [-1, 2]), tf.zeros([1, 1, 2, 1]), tf.constant([0])
        >>> print(TRADES(beta=6.0).loss(predict, x, x_adv=x, y=y).numpy().round(3))  # no divergence where x_adv is x
        [0.693]
    """

    beta: float = 6.0
    attack_in_training_mode: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where beta is negative."""
        not_negative("TRADES.beta", self.beta)

    def objective(self, predict: Predict, x: tf.Tensor, y: tf.Tensor) -> Objective:
        """KL(p(x) || p(x')); p(x) does not change during the attack and is computed once."""
        clean = predict(x)
        return lambda z: kl_divergence(clean, predict(z))

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Gradients flow through both arguments of the KL."""
        adversarial = predict(x_adv)
        clean = predict(x)
        return cross_entropy(clean, y) + self.beta * kl_divergence(clean, adversarial)


@dataclasses.dataclass(frozen=True)
class MART:
    """Boosted CE + beta KL(p || p') (1 - p_y) (Wang et al., ICLR 2020, eq. 11).

    Attributes:
        beta: The weight of the regulariser (lambda in the paper).
        attack_in_training_mode: False as in the authors' code.
    """

    beta: float = 6.0
    attack_in_training_mode: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where beta is negative."""
        not_negative("MART.beta", self.beta)

    def objective(self, predict: Predict, x: tf.Tensor, y: tf.Tensor) -> Objective:
        """Cross-entropy."""
        return lambda z: cross_entropy(predict(z), y)

    def loss(self, predict: Predict, x: tf.Tensor, x_adv: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """The boosted cross-entropy, and the weighted KL."""
        clean = predict(x)
        adversarial = predict(x_adv)
        regularizer = mart_regularizer(clean, adversarial, y)
        return boosted_cross_entropy(adversarial, y) + self.beta * regularizer
