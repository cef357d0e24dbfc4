"""Trains one network on one task after another."""

from typing import Any

import keras
import tensorflow as tf

from awp_tf.continual.basis import GradientBases
from awp_tf.continual.importance import SoftWeights
from awp_tf.continual.settings import Learner
from awp_tf.continual.step import ContinualStep, Span, TaskBatch
from awp_tf.functional import compiled, uses_xla
from awp_tf.optimizers import SGD
from awp_tf.trainer import RobustTrainer
from awp_tf.transforms import ClipByGlobalNorm
from awp_tf.types import Weights


class ProjectOut:
    """Takes out of a gradient what earlier tasks need: G - U diag(lambda) U' G; to be used as a Transform."""

    def __init__(self, bases: GradientBases, weights: SoftWeights, learner: Learner) -> None:
        """Bases, their importance, and where the gradient's norm is clipped before."""
        self._bases, self._weights, self._frozen = bases, weights, float(learner.freeze_norm)
        self._clip = ClipByGlobalNorm(learner.limit)

    def __call__(self, gradients: Weights, weights: Weights) -> Weights:
        """See awp_tf.transforms.Transform."""
        clipped = self._clip(gradients, weights)
        inside = self._bases.project(clipped, self._weights.values())
        places, moving = set(self._bases.places), 1 - self._bases.begun * self._frozen
        return [
            g - i if place in places else (g * moving if g.shape.rank < 2 else g)
            for place, (g, i) in enumerate(zip(clipped, inside, strict=True))
        ]


class ContinualTrainer(RobustTrainer):
    """Trains one network on one task after another.

    Attributes:
        bases: Of the gradients of earlier tasks.
        importance: Of their directions.
    """

    def __init__(self, network: keras.Model, learner: Learner, *, multi_head: bool, seed: int = 0) -> None:
        """Nothing has been learned yet; compiled with SGD.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K] of the classes of all tasks.
            learner: How it learns.
            multi_head: Whether its last layer is not shared by tasks, so that it needs no basis.
            seed: What all noise depends on.

        Raises:
            UserError: See RobustTrainer.
        """
        bases = GradientBases(network, learner.basis.layers(network, multi_head))
        dtype = network.trainable_variables[0].dtype
        soft = SoftWeights(learner.importance, [value.shape[0] for value in bases.values], dtype)
        super().__init__(
            network,
            method=learner.method,
            attack=learner.attack,
            perturbation=learner.perturbation,
            transform=ProjectOut(bases, soft, learner),
            seed=seed,
            xla=learner.xla,
        )
        self.bases, self.importance, self._learner = bases, soft, learner
        self.pure_step = step = ContinualStep(network, learner, bases.places, seed)
        self._flat = compiled(step.flat, uses_xla(learner.xla))
        self.compile(SGD(learner.learning_rate, learner.momentum))

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One update.

        Args:
            data: Images [B, H, W, C], labels among all classes [B], open classes bool [B, K], how many of the images,
                the first ones, belong to the current task, and the scale of step sizes (1 until they are reduced).

        Returns:
            "loss": at the nearby weights, of the current task and the memory together.
        """
        x, y, open_classes, current, scale = data
        scale = tf.cast(scale, x.dtype)
        size = tf.cast(tf.shape(x)[0], x.dtype)
        batch: Any = TaskBatch(x, y, tf.ones_like(y, x.dtype) / size, 0, open_classes)
        now = self._now(batch)
        span = Span(
            [tf.convert_to_tensor(value) for value in self.bases.values],
            [tf.convert_to_tensor(raw) for raw in self.importance.raw],
            tf.convert_to_tensor(self.bases.begun),
        )
        found = self._flat(now, current, span, scale)
        gradients = found.importance and tf.clip_by_global_norm(found.importance, self._learner.limit)[0]
        self.importance.step(gradients, scale)
        self._write(now, found.gradients, found.state)
        return {"loss": found.loss}

    def begin_task(self) -> None:
        """No momentum leaks from one task to the next, and importance begins anew."""
        self.optimizer.forget()
        self.importance.begin()
        self.optimizer.learning_rate.assign(self._learner.learning_rate)

    def slow_down(self, scale: float) -> None:
        """A smaller rate, and all momentum is forgotten, as the authors do.

        Args:
            scale: Of the rate with which a task begins.
        """
        self.optimizer.forget()
        self.importance.forget()
        self.optimizer.learning_rate.assign(scale * self._learner.learning_rate)
