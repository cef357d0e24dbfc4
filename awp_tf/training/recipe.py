"""A recipe: everything that says how to train, and nothing of data, folders or length."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from awp_tf.attacks import Attack
from awp_tf.averaging import Averaging, Latest
from awp_tf.free import FreeTrainer
from awp_tf.infra.errors import UserError, at_least, fraction, one_of
from awp_tf.infra.keras_layers import all_layers
from awp_tf.methods import Method
from awp_tf.networks.build import build
from awp_tf.optimizers import SGD
from awp_tf.perturbations import Identity, Perturbation
from awp_tf.schedules import LearningRate, Schedule
from awp_tf.trainer import RobustTrainer
from awp_tf.transforms import NoTransform, Transform

_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
_CALLED = {"method": "loss"}
_EXAMPLES = {
    "method": "@TRADES()",
    "attack": "@PGD()",
    "perturbation": "@AWP()",
    "transform": "@ClipByGlobalNorm()",
    "learning_rate": "@Cosine()",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train: method x attack x perturbation, a network, and the optimizer's settings.

    Attributes:
        network: Called with shape and classes.
        method: Inner objective and outer loss.
        attack: Searches the worst inputs.
        perturbation: Searches the worst weights.
        perturb_from: Which part of the run, in [0, 1), is over before weights are perturbed.
        transform: Changes the gradient of the global batch, for instance clips it.
        learning_rate: As a function of the epoch.
        whole_epochs: Whether the rate changes only between epochs (TRADES, MART).
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: Coupled, taken at the perturbed weights (by SAM at the weights themselves).
        alternations: How often attack and perturbation take turns.
        accumulation: Into how many parts a device's share of a batch is cut, so that one at a time is held in memory
            (awp_tf.micro_batches); the step is that of the whole batch, but for BatchNorm and SoftLabelTRADES.
        m_sharpness: On several devices, each takes the worst weights of its own share of a batch, not of the whole
            batch: see RobustTrainer.
        replays: Above 1, free adversarial training: each batch is used so often, and one gradient serves weights and
            images (awp_tf.free).
        averaging: Which weights are evaluated and saved: Latest, EMA or SWA; called with the network.
        xla: True, False or "auto" (where a GPU need not be deterministic).
        precision: A Keras dtype policy: float32, mixed_bfloat16, mixed_float16 (for GPUs; loss scaling) or float64.
        attack_precision: That of the search for the worst images, which is most of a step, where it is another: with
            mixed_bfloat16 and a precision of float32 the gradients of the weights stay those of float32. Costs the
            memory of a second set of weights. Not for networks of a file, whose types are fixed.
    """

    network: Callable[..., keras.Model]
    method: Method
    attack: Attack
    learning_rate: Schedule
    perturbation: Perturbation = Identity()
    perturb_from: float = 0.0
    transform: Transform = NoTransform()
    whole_epochs: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    alternations: int = 1
    accumulation: int = 1
    m_sharpness: bool = False
    replays: int = 1
    averaging: Callable[[keras.Model], Averaging] = Latest
    xla: bool | str = "auto"
    precision: str = "float32"
    attack_precision: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        fraction("Recipe.perturb_from", self.perturb_from)
        at_least("Recipe.accumulation", self.accumulation, 1)
        at_least("Recipe.replays", self.replays, 1)
        if self.replays > 1 and self.accumulation > 1:
            raise UserError(f"Recipe.accumulation: expected 1 with replays, received {self.accumulation}.")
        for name, example in _EXAMPLES.items():
            part = getattr(self, name)
            if isinstance(part, type) or not callable(getattr(part, _CALLED.get(name, "__call__"), None)):
                raise UserError(f"Recipe.{name}: expected an object such as {example}, received {part!r}.")
        for name, example in (("network", "@small_cnn"), ("averaging", "@EMA")):
            part = getattr(self, name)
            if not callable(part):
                raise UserError(
                    f"Recipe.{name}: expected a function such as {example} (no brackets), received {part!r}."
                )
        one_of("Recipe.precision", self.precision, _PRECISIONS)
        if self.attack_precision is not None:
            self._check_attack_precision(self.attack_precision)

    def _check_attack_precision(self, policy: str) -> None:
        if self.precision == "float64" or self.replays > 1:  # the attack needs passes of its own, on the same weights
            raise UserError(
                f"Recipe.attack_precision: expected none with precision float64 or replays, received {policy!r}."
            )
        one_of("Recipe.attack_precision", policy, _PRECISIONS[:-1])

    @property
    def dtype(self) -> str:
        """The type of pixels and logits."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def best_by(self) -> str:
        """Which validation accuracy the best network is chosen by: "robust", or "clean" where nothing is attacked."""
        return "clean" if self.attack.threat is None else "robust"

    def trainer(
        self, shape: tuple[int, ...], classes: int, *, epochs: int, steps_per_epoch: int, seed: int
    ) -> RobustTrainer:
        """A compiled trainer; call it inside strategy.scope(). Sets the seeds of Python, NumPy and TensorFlow.

        Raises:
            UserError: The network does not fit images or classes.
        """
        keras.utils.set_random_seed(seed)
        with _precision(self.dtype, self.precision):
            network = build(self.network, shape, classes)
            trainer = self._trainer(network, self._attacked(network, shape, classes), epochs, steps_per_epoch, seed)
        made = network.outputs[0].shape[-1]
        if made != classes:
            raise UserError(f"{network.name}: expected {classes} logits, one for each class, received {made}.")
        return trainer

    def _attacked(self, network: keras.Model, shape: tuple[int, ...], classes: int) -> keras.Model | None:
        """What the attack sees in place of the network: one that computes in another precision."""
        if self.attack_precision in (None, self.precision):
            return None
        with _precision(self.dtype, str(self.attack_precision)):
            attacked = build(self.network, shape, classes)
        if _compute_dtypes(attacked) == _compute_dtypes(network):
            raise UserError(
                f"Recipe.attack_precision: expected a network whose layers follow Keras' policy, received "
                f"{network.name}, whose types are fixed, as those of a file are; leave the setting out."
            )
        return attacked

    def _trainer(
        self, network: keras.Model, attacked: keras.Model | None, epochs: int, steps_per_epoch: int, seed: int
    ) -> RobustTrainer:
        make = functools.partial(FreeTrainer, replays=self.replays) if self.replays > 1 else RobustTrainer
        updates = steps_per_epoch * self.replays
        trainer = make(
            network,
            method=self.method,
            attack=self.attack,
            attacked=attacked,
            perturbation=self.perturbation,
            perturb_from=self.perturb_from * epochs,
            transform=self.transform,
            weight_decay=self.weight_decay,
            alternations=self.alternations,
            accumulation=self.accumulation,
            m_sharpness=self.m_sharpness,
            averaging=self.averaging,
            steps_per_epoch=updates,
            seed=seed,
            xla=self.xla,
        )
        if self.whole_epochs and float(self.learning_rate(tf.constant(epochs, tf.float64))) == 0:
            raise UserError(
                "Recipe.whole_epochs: expected False with a learning rate that ends at 0, or the last epoch would have "
                "that rate (gin: WHOLE_EPOCHS=False)."
            )
        rate = LearningRate(self.learning_rate, updates, self.whole_epochs)
        trainer.compile(SGD(rate, self.momentum, self.nesterov))
        return trainer


def _compute_dtypes(network: keras.Model) -> list[str]:
    """Of its layers with weights."""
    return [layer.compute_dtype for layer in all_layers(network)[1:] if layer.weights]


@contextlib.contextmanager
def _precision(floatx: str, policy: str) -> Iterator[None]:
    """Keras' global settings while a network is built; afterwards they are again what they were."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
