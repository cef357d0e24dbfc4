"""The pure part of a training step (Wu et al., 2020, Algorithm 1): nothing here reads or writes a variable."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.attacks import Attack
from awp_tf.functional import Recorder, bind, compiled
from awp_tf.methods import Method
from awp_tf.perturbations import BN_UPDATES, Identity, Loss, Perturbation, Points
from awp_tf.schedules import at_epoch
from awp_tf.types import Batch, Predict, Weights


class Now(NamedTuple):
    """Where training stands as a step begins.

    Attributes:
        weights: Of the network.
        state: Its non-trainable variables: BatchNorm's running statistics, seeds.
        batch: The replica's share; what it holds is the business of a kind of step, but for `weight`, which makes a sum
            over the losses the mean over the global batch, and `first`.
        epoch: A float64 scalar.
        step: A scalar, 0-based.
        scale: A factor that the batch's weight already contains (loss scaling); it is divided out of the gradients that
            a perturbation sees.
        loss_scale: How much larger gradients of the outer loss are inside a float16 network (awp_tf.loss_scale).
    """

    weights: Weights
    state: Weights
    batch: Any
    epoch: tf.Tensor
    step: tf.Tensor
    scale: tf.Tensor | None = None
    loss_scale: tf.Tensor | float = 1.0


class Step:
    """Worst inputs, worst weights, and the gradient there, at explicit weights; a subclass knows inputs and loss."""

    def __init__(
        self,
        *,
        perturbation: Perturbation,
        weight_decay: float = 0.0,
        alternations: int = 1,
        seed: int = 0,
        jit: bool = False,
        m_sharpness: bool = False,
    ) -> None:
        """See RobustTrainer; jit says whether XLA compiles attack and gradients."""
        self._ascent_mean = replicas.own if m_sharpness else replicas.mean
        self._perturbation, self._weight_decay = perturbation, weight_decay
        self._alternations, self._seed = alternations, seed
        self._craft = compiled(self._craft_pure, jit)
        self._ascent = compiled(functools.partial(self._gradients_pure, Identity()), jit)  # of the outer loss as it is
        self._descent = compiled(functools.partial(self._gradients_pure, perturbation), jit)

    def search(self, now: Now) -> tuple[tf.Tensor, Points, Sequence[Weights]]:
        """The worst inputs and the worst weights, found in turns, each of which goes on from the last.

        Returns:
            The worst inputs (of images [B, H, W, C]), the nearby points, and the states before and after each pass that
            looked for them.
        """
        perturbation = at_epoch(self._perturbation, now.epoch, now.weights[0].dtype)
        begin, _ = BN_UPDATES[perturbation.bn_update]
        x_adv, start, states = None, None, [now.state]
        points: Points = [now.weights]
        for turn in range(self._alternations):
            x_adv = self.craft(now, points[0], turn, x_adv)
            same_everywhere = noise.make_seed(self._seed, noise.WEIGHTS, now.step, turn)

            def ascent(at: Weights, x_adv: tf.Tensor = x_adv, seed: noise.Seed = same_everywhere) -> Weights:
                _, gradients, new = self._ascent(at, states[begin], now, x_adv, seed)
                states.append(new)
                dense = [tf.convert_to_tensor(g) for g in gradients]  # those of embeddings may be sparse
                return _unscaled(self._ascent_mean(dense), now.scale)

            worst = perturbation(now.weights, ascent, same_everywhere, start)
            # The pass is made in either case: replicas cannot meet inside a tf.cond.
            begun = self._begun(now, worst)
            points = start = [[tf.where(begun, n, w) for n, w in zip(at, now.weights, strict=True)] for at in worst]
        return x_adv, points, states

    def descent(
        self, now: Now, points: Points, states: Sequence[Weights], x_adv: tf.Tensor
    ) -> tuple[tf.Tensor, Weights, Weights]:
        """The mean over the points of the loss, its gradient with weight decay, and the state to keep."""
        begin, keep = BN_UPDATES[self._perturbation.bn_update]
        seed = noise.make_seed(self._seed, noise.WEIGHTS, now.step, self._alternations)
        found = []
        for number, point in enumerate(points):
            loss, gradients, new = self.at(now, point, states[begin], x_adv, seed.fold(number))
            found.append((loss, gradients, [*states, new][keep]))
        return found[0] if len(found) == 1 else tf.nest.map_structure(mean, *found)

    def craft(self, now: Now, weights: Weights, turn: int = 0, start: tf.Tensor | None = None) -> tf.Tensor:
        """The worst inputs at weights, of images [B, H, W, C].

        Args:
            now: Where training stands.
            weights: Of the network that is attacked.
            turn: Each has noise of its own.
            start: Where the search goes on from; None is near the images.
        """
        seed = noise.make_seed(self._seed, noise.ATTACK, now.step, turn)._replace(first=now.batch.first)
        adversarial: tf.Tensor = self._craft(weights, now, seed, start)
        return adversarial

    def at(
        self, now: Now, point: Weights, state: Weights, x_adv: tf.Tensor, seed: noise.Seed
    ) -> tuple[tf.Tensor, Weights, Weights]:
        """What is minimised at one point, its gradient with weight decay, and the state that it leaves."""
        loss, gradients, new = self._descent(point, state, now, x_adv, seed)
        if not self._weight_decay:
            return loss, gradients, new
        decaying = {"nearby": point, "centre": now.weights}[self._perturbation.weight_decay_at]
        return loss, [g + self._weight_decay * w for g, w in zip(gradients, decaying, strict=True)], new

    def outer_loss(self, now: Now, state: Weights, x_adv: Any) -> tuple[Loss, list[Weights]]:
        """The outer loss as a function of the weights, and the states that its calls will have left behind."""
        raise NotImplementedError

    def _craft_pure(self, weights: Weights, now: Now, seed: noise.Seed, start: Any) -> Any:
        raise NotImplementedError

    def _begun(self, now: Now, points: Points) -> tf.Tensor:
        """Whether the weights are perturbed by now, to points; a boolean."""
        raise NotImplementedError

    def _gradient(self, tape: tf.GradientTape, total: tf.Tensor, weights: Weights) -> Weights:
        gradients: Weights = tape.gradient(total, weights, unconnected_gradients="zero")
        return gradients

    def _gradients_pure(
        self,
        perturbation: Perturbation,
        weights: Weights,
        state: Weights,
        now: Now,
        x_adv: tf.Tensor,
        seed: noise.Seed,
    ) -> tuple[tf.Tensor, Weights, Weights]:
        """What a perturbation minimises at weights, its gradient, and the state its forward passes leave behind."""
        perturbation = at_epoch(perturbation, now.epoch, weights[0].dtype)
        begun = tf.cast(self._begun(now, [weights]), weights[0].dtype)
        loss, states = self.outer_loss(now, state, x_adv)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            losses = perturbation.loss(loss, weights, seed, begun)
            total = tf.reduce_sum(losses * tf.cast(now.batch.weight, losses.dtype))
        gradients = self._gradient(tape, total, weights)
        return total, gradients, [mean(*values) for values in zip(*states, strict=True)]


class ClassifierStep(Step):
    """A step of a classifier of images: an attack on pixels, and a method's loss."""

    def __init__(
        self,
        network: keras.Model,
        *,
        method: Method,
        attack: Attack,
        attacked: keras.Model | None = None,
        perturb_from: float = 0.0,
        **settings: Any,
    ) -> None:
        """See RobustTrainer and Step."""
        super().__init__(**settings)
        self._network, self._method, self._attack, self._perturb_from = network, method, attack, perturb_from
        self._attacked = attacked or network

    def seen(self, predict: Predict, batch: Batch) -> Predict:
        """What attack and loss see of the network: all of it; a subclass may close some classes."""
        return predict

    def outer_loss(self, now: Now, state: Weights, x_adv: tf.Tensor) -> tuple[Loss, list[Weights]]:
        """The outer loss as a function of the weights, and the states that its calls will have left behind."""
        method = at_epoch(self._method, now.epoch, now.batch.x.dtype)
        states: list[Weights] = []

        def loss(weights: Weights) -> tf.Tensor:
            predict = Recorder(self._network, weights, state, now.loss_scale)
            losses = method.loss(self.seen(predict, now.batch), now.batch.x, x_adv, now.batch.y)
            states.append(predict.state)
            return losses

        return loss, states

    def _craft_pure(self, weights: Weights, now: Now, seed: noise.Seed, start: tf.Tensor | None) -> tf.Tensor:
        x, y = now.batch.x, now.batch.y
        method, attack = at_epoch(self._method, now.epoch, x.dtype), at_epoch(self._attack, now.epoch, x.dtype)
        predict = bind(self._attacked, weights, now.state, training=method.attack_in_training_mode)
        return attack(method.objective(self.seen(predict, now.batch), x, y), x, seed, start)

    def _begun(self, now: Now, points: Points) -> tf.Tensor:
        return now.epoch >= self._perturb_from


def mean(*values: tf.Tensor) -> tf.Tensor:
    """Of the same number at several points; counters are the same at all of them."""
    return tf.add_n([*map(tf.convert_to_tensor, values)]) / len(values) if values[0].dtype.is_floating else values[0]


def _unscaled(gradients: Weights, scale: tf.Tensor | None) -> Weights:
    return gradients if scale is None else [g / tf.cast(scale, g.dtype) for g in gradients]
