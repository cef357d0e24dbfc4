"""The pure part of a step of continual learning (Deng et al., NeurIPS 2021, Algorithm 1).

It is awp_tf.step with three things more: tasks may have classes of their own, the worst weights are searched on images
of the current task, and what is searched lies in the bases of earlier tasks.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from awp_tf import noise
from awp_tf.continual.basis import project
from awp_tf.continual.settings import Learner
from awp_tf.step import ClassifierStep, Now, mean
from awp_tf.types import Predict, Weights

_CLOSED = -1e9  # logit of a class that is not to be meant; its probability is exactly 0


class TaskBatch(NamedTuple):
    """A batch of the current task, and of the memory after it.

    Attributes:
        x: Images, [B, H, W, C].
        y: Labels among all classes, int32 [B].
        weight: Of each example, [B]; their sum is 1.
        first: As in awp_tf.types.Batch.
        open: Which classes may be meant, bool [B, K]: those of the example's task.
    """

    x: tf.Tensor
    y: tf.Tensor
    weight: tf.Tensor
    first: tf.Tensor | int
    open: tf.Tensor

    def part(self, begin: tf.Tensor, end: tf.Tensor) -> "TaskBatch":
        """Some of its examples, with weights of their own."""
        size = tf.cast(tf.maximum(end - begin, 1), self.weight.dtype)
        return TaskBatch(
            self.x[begin:end], self.y[begin:end], tf.ones_like(self.y[begin:end], self.weight.dtype) / size, begin,
            self.open[begin:end],
        )  # fmt: skip


class Span(NamedTuple):
    """Bases and their importance as values.

    Attributes:
        bases: U of each layer, [d, d].
        raw: Importance before its rule, [d] each.
        begun: 1 once there are bases.
    """

    bases: Weights
    raw: Weights
    begun: tf.Tensor


class Found(NamedTuple):
    """What one update knows: the loss, gradients in weights and in the raw importance, and BatchNorm's statistics."""

    loss: tf.Tensor
    gradients: Weights
    importance: Weights
    state: Weights


class ContinualStep(ClassifierStep):
    """Worst inputs, worst weights and the gradient there, for tasks that may have classes of their own."""

    def __init__(self, network: keras.Model, learner: Learner, places: Sequence[int], seed: int) -> None:
        """As Step.

        Args:
            network: What is trained.
            learner: How.
            places: Of the kernels that have a basis among the trainable variables.
            seed: What all noise depends on.
        """
        super().__init__(
            network,
            method=learner.method,
            attack=learner.attack,
            perturbation=learner.perturbation,
            perturb_from=0.0,
            weight_decay=0.0,
            alternations=1,
            seed=seed,
            jit=False,  # of its parts: the whole is compiled
        )
        self._learner, self._places = learner, places

    def seen(self, predict: Predict, batch: Any) -> Predict:
        """Logits in which the classes of other tasks have no part."""
        return lambda x: tf.where(batch.open, predict(x), tf.constant(_CLOSED, x.dtype))

    def flat(self, now: Now, current: tf.Tensor, span: Span, scale: tf.Tensor) -> Found:
        """One update of Algorithm 1 of the paper, as a pure function.

        Args:
            now: Its batch is a TaskBatch.
            current: How many of its first examples belong to the current task.
            span: The bases.
            scale: Of the step towards the worst weights.
        """
        x_adv = self.craft(now, now.weights)
        searched = self._searched(now, x_adv, current)
        watched = [*span.raw, *(now.weights if self._learner.second_order else [])]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            importance = [self._learner.importance.value(raw) for raw in span.raw]

            def ascent(at: Weights) -> Weights:
                part, images, seed = next(searched)
                _, gradients, _ = self._ascent(at, now.state, part, images, seed)
                inside = self._inside(gradients, span, importance)
                limit = self._learner.limit
                return [scale * tf.clip_by_value(g, -limit, limit) for g in inside]

            seed = noise.make_seed(self._seed, noise.WEIGHTS, now.step)
            points = self._perturbation(now.weights, ascent, seed)
        at_points = [self.at(now, point, now.state, x_adv, seed.fold(-1 - k)) for k, point in enumerate(points)]
        loss, gradients, state = tf.nest.map_structure(mean, *at_points)
        # The chain rule by hand: dL/d(raw) = sum over the points of dL/d(point) d(point)/d(raw), likewise for weights.
        slopes = [[g / len(points) for g in found[1]] for found in at_points]
        back = tape.gradient(tf.nest.flatten(points), watched, tf.nest.flatten(slopes), unconnected_gradients="zero")
        of_raw, of_weights = back[: len(span.raw)], back[len(span.raw) :]
        if self._learner.plain_descent:
            loss, gradients, state = self.at(now, now.weights, now.state, x_adv, seed)
        elif self._learner.second_order:
            gradients = of_weights
        return Found(loss, gradients, of_raw, state)

    def _searched(self, now: Now, x_adv: tf.Tensor, current: tf.Tensor) -> Iterator[tuple[Now, tf.Tensor, noise.Seed]]:
        """Parts of the batch, one for each step of the search, over and over where it takes more."""
        count = current if self._learner.search_on == "task" else tf.shape(now.batch.x)[0]
        steps = getattr(self._perturbation, "steps", 1)
        for turn in itertools.count():
            k = turn % steps
            begin = tf.minimum(count * k // steps, count - 1)  # never empty: BatchNorm knows no batch of none
            end = tf.maximum(count * (k + 1) // steps, begin + 1)
            seed = noise.make_seed(self._seed, noise.WEIGHTS, now.step, turn)
            yield now._replace(batch=now.batch.part(begin, end)), x_adv[begin:end], seed

    def _inside(self, gradients: Weights, span: Span, importance: Weights) -> list[tf.Tensor]:
        """What of a gradient lies in the bases; all of it as long as there are none."""
        inside = project(span.bases, importance, gradients, self._places)
        frozen = span.begun if self._learner.freeze_norm else tf.zeros_like(span.begun)
        inside = [g * (1 - frozen) if g.shape.rank < 2 else g for g in inside]
        return [tf.where(span.begun > 0, i, g) for i, g in zip(inside, gradients, strict=True)]
