"""A recipe: everything that says how to train, and nothing of data, folders or length."""

import dataclasses
from collections.abc import Callable

import keras

from awp_tf.attacks import Attack
from awp_tf.averaging import EMA, Averaging, Latest
from awp_tf.checks import UserError, fraction
from awp_tf.methods import Method
from awp_tf.optimizers import SGD
from awp_tf.perturbations import Identity, Perturbation
from awp_tf.schedules import LearningRate, Schedule
from awp_tf.trainer import RobustTrainer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: method x attack x perturbation, a network, and the optimizer's settings.

    Attributes:
        network: Called with shape and classes.
        method: Inner objective and outer loss.
        attack: Searches the worst inputs.
        perturbation: Searches the worst weights.
        learning_rate: As a function of the epoch.
        whole_epochs: Whether the rate changes only between epochs (TRADES, MART).
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: Coupled, taken at the perturbed weights.
        alternations: How often attack and perturbation take turns.
        ema_decay: Above 0, evaluate and save a moving average of the weights.
        xla: True, False or "auto" (where there is a GPU).
        precision: A Keras dtype policy: float32, mixed_bfloat16 or float64.
    """

    network: Callable[..., keras.Model]
    method: Method
    attack: Attack
    learning_rate: Schedule
    perturbation: Perturbation = Identity()
    whole_epochs: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    alternations: int = 1
    ema_decay: float = 0.0
    xla: bool | str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        fraction("Recipe.ema_decay", self.ema_decay)
        known = ("float32", "mixed_bfloat16", "float64")
        if self.precision not in known:
            raise UserError(f"Recipe.precision: expected one of {', '.join(known)}, received {self.precision!r}.")

    @property
    def dtype(self) -> str:
        """The type of pixels and logits."""
        return "float64" if self.precision == "float64" else "float32"

    def trainer(self, shape: tuple[int, ...], classes: int, *, steps_per_epoch: int, seed: int) -> RobustTrainer:
        """A compiled trainer; call it inside strategy.scope(). Sets Keras' precision and seeds."""
        keras.utils.set_random_seed(seed)
        keras.config.set_floatx(self.dtype)
        keras.config.set_dtype_policy(self.precision)
        trainer = RobustTrainer(
            self.network(shape=shape, classes=classes),
            method=self.method,
            attack=self.attack,
            perturbation=self.perturbation,
            weight_decay=self.weight_decay,
            alternations=self.alternations,
            averaging=self._averaging,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            xla=self.xla,
        )
        rate = LearningRate(self.learning_rate, steps_per_epoch, self.whole_epochs)
        trainer.compile(SGD(rate, self.momentum, self.nesterov))
        return trainer

    def _averaging(self, network: keras.Model) -> Averaging:
        return EMA(network, self.ema_decay) if self.ema_decay else Latest(network)
