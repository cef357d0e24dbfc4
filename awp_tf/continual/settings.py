"""What gin binds of continual learning: how one task after another is learned, and what is measured."""

import dataclasses
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from awp_tf.attacks import Attack, Clean
from awp_tf.continual.basis import Basis, NoBasis
from awp_tf.continual.early_stop import EarlyStop, NoEarlyStop
from awp_tf.continual.importance import Importance
from awp_tf.continual.tasks import Tasks
from awp_tf.data import Data, NoExtra, NoMix
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError, at_least, fraction, one_of, positive, whole_seed
from awp_tf.methods import Method
from awp_tf.perturbations import Identity, Perturbation
from awp_tf.schedules import at_epoch
from awp_tf.soft_labels import SoftLabelTRADES
from awp_tf.threats import Attacker


@dataclasses.dataclass(frozen=True)
class Learner:
    """How tasks are learned: method x attack x perturbation, as everywhere, and what keeps earlier tasks.

    Attributes:
        network: Called with shape and classes.
        method: Inner objective and outer loss.
        attack: Searches the worst inputs.
        perturbation: Searches the worst weights: FS, LookAhead, or any other. BatchNorm keeps the statistics of passes
            at the nearby points (with plain_descent: at the weights), whatever bn_update says; an early stop shortens
            steps of FS and LookAhead alone.
        memory: How many images of earlier tasks are kept; as many as a batch has are drawn for each step.
        basis: How gradient bases are found; NoBasis() is none.
        importance: Of the bases' directions.
        learning_rate: Of SGD; each task begins with it.
        momentum: Of SGD; each task begins with none.
        glances: How often a batch is used, each time with other images of the memory.
        limit: The gradient's norm is clipped to it, and each number of a search's gradient.
        search_on: The perturbation sees images of the current "task", or of "both" it and the memory.
        second_order: Whether the descent knows how the nearby points move with the weights.
        plain_descent: Descend along the gradient at the weights themselves; the perturbation only teaches importance.
        freeze_norm: All tensors of rank 1 (BatchNorm's gamma and beta, biases) stay as they are after the first task.
        xla: True, False or "auto" (where a GPU need not be deterministic).
    """

    network: Callable[..., keras.Model]
    method: Method
    attack: Attack
    perturbation: Perturbation = Identity()
    memory: int = 0
    basis: Basis = NoBasis()
    importance: Importance = Importance()
    learning_rate: float = 0.01
    momentum: float = 0.9
    glances: int = 1
    limit: float = 2.0
    search_on: str = "task"
    second_order: bool = False
    plain_descent: bool = False
    freeze_norm: bool = False
    xla: bool | str = "auto"

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        _require_objects(
            self, method="AT()", attack="PGD()", perturbation="FS()", basis="Basis()", importance="Importance()"
        )
        if isinstance(self.method, SoftLabelTRADES):
            raise UserError(
                "Learner.method: expected one that needs logits alone, received SoftLabelTRADES; take TRADES."
            )
        for name in ("method", "attack", "perturbation"):
            if at_epoch(getattr(self, name), tf.constant(0.0, tf.float64)) is not getattr(self, name):
                raise UserError(f"Learner.{name}: expected numbers that stay as they are, received a schedule in it.")
        at_least("Learner.memory", self.memory, 0)
        at_least("Learner.glances", self.glances, 1)
        positive("Learner.learning_rate", self.learning_rate)
        positive("Learner.limit", self.limit)
        fraction("Learner.momentum", self.momentum)
        one_of("Learner.search_on", self.search_on, ("task", "both"))
        needs_memory = not isinstance(self.basis, NoBasis) and not self.basis.from_task
        if needs_memory and not self.memory:
            raise UserError("Learner.memory: expected images for the bases (or Basis.from_task = True), received 0.")


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """How sharp the loss of each task so far is after every task.

    The mean, over random filter-normalised directions, of how much the loss on training images rises (Li et al.,
    NeurIPS 2018).

    Attributes:
        attack: Whose images the loss is taken at, anew at every point.
        directions: How many; 0 measures nothing.
        alphas: How far along them, in units of the filters' own lengths.
        examples: Training images of each task.
    """

    attack: Attack = Clean()
    directions: int = 5
    alphas: tuple[float, ...] = (0.25, 0.5, 1.0)
    examples: int = 200

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        at_least("Sharpness.directions", self.directions, 0)
        at_least("Sharpness.examples", self.examples, 1)
        if not isinstance(self.alphas, (tuple, list)) or not self.alphas or min(self.alphas) <= 0:
            raise UserError(f"Sharpness.alphas: expected numbers > 0, received {self.alphas!r}.")


@dataclasses.dataclass(frozen=True)
class Continual:
    """A whole run.

    Attributes:
        learner: How.
        data: What the tasks are made of.
        tasks: How they are made.
        epochs: At most, of each task.
        early_stop: Whether a task ends before.
        seed: What initial weights, order, memory and attacks depend on.
        validation: Where the early stop takes the loss.
        test: What is measured after each task.
        sharpness: What else is.
        later: What other commands will attack the network with, by name: their balls are compared, too.
    """

    learner: Learner
    data: Data
    tasks: Tasks
    validation: Measurement
    test: Measurement
    epochs: int = 1
    early_stop: EarlyStop | NoEarlyStop = NoEarlyStop()
    seed: int = 0
    sharpness: Sharpness = Sharpness()
    later: Mapping[str, Attacker] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UserError where a setting makes no sense."""
        _require_objects(self, tasks="SplitClasses()", early_stop="EarlyStop()", sharpness="Sharpness()")
        at_least("Continual.epochs", self.epochs, 1)
        whole_seed("Continual.seed", self.seed)
        if self.data.mix != NoMix() or self.data.extra != NoExtra():
            raise UserError(
                f"Continual.data: expected no mix and no extra images, received {self.data.mix} and {self.data.extra}."
            )
        memory, batch = self.learner.memory, self.data.batch_size
        if 0 < memory < batch:
            raise UserError(
                f"Learner.memory: expected at least the {batch} images of a batch, or 0 for none, received {memory}."
            )

    @property
    def attacks(self) -> bool:
        """Whether anything attacks in training, so that robust accuracy is worth measuring."""
        return self.learner.attack.threat is not None


def _require_objects(settings: object, **examples: str) -> None:
    """In gin, @FS is the class and @FS() an object of it."""
    for name, example in examples.items():
        value = getattr(settings, name)
        if value is None or isinstance(value, (type, str, int, float)):
            received = f"{value.__name__} without ()" if isinstance(value, type) else repr(value)
            owner = type(settings).__name__
            raise UserError(f"{owner}.{name}: expected an object such as @{example}, received {received}.")
