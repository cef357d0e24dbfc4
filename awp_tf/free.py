"""Free adversarial training (Shafahi et al., NeurIPS 2019): one backward pass for the weights and for the images."""

from typing import Any

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.attacks import PGD
from awp_tf.box import clip_delta
from awp_tf.examples import examples, share_of
from awp_tf.functional import compiled, uses_xla
from awp_tf.infra.errors import UserError, at_least
from awp_tf.methods import Standard
from awp_tf.perturbations import Identity
from awp_tf.schedules import at_epoch
from awp_tf.step import Now, mean
from awp_tf.trainer import RobustTrainer
from awp_tf.types import Weights


class FreeTrainer(RobustTrainer):
    """Uses each batch several times in a row, each time taking one step of the weights and one of the images.

    Both steps follow from one backward pass, so m replays cost as many gradients as m steps of ordinary training; train
    for 1/m of the epochs. Step and start of the images are those of the attack (a PGD), of which nothing else is used;
    the images' gradient is that of the outer loss, so BatchNorm is in training mode throughout.
    In the authors' code the perturbation of one batch is where that of the next begins; here it begins anew, so that a
    step depends on weights, batch and seed alone, and a resumed run repeats it.
    """

    def __init__(self, network: keras.Model, *, replays: int = 8, **settings: Any) -> None:
        """Create it inside strategy.scope().

        Args:
            network: See RobustTrainer.
            replays: How often a batch is used (m in the paper).
            **settings: See RobustTrainer; steps_per_epoch counts updates, replays of them a batch.

        Raises:
            UserError: The attack is no PGD or has a precision of its own, weights are perturbed (that would need
                gradients of its own), the method is Standard, or alternations or accumulation are not 1.
        """
        super().__init__(network, **settings)
        at_least("FreeTrainer.replays", replays, 1)
        if settings.get("accumulation", 1) != 1:
            raise UserError(
                f"FreeTrainer.accumulation: expected 1, since a replay is one pass over a whole batch, received "
                f"{settings['accumulation']}; take smaller batches."
            )
        if settings.get("attacked"):
            raise UserError(
                "FreeTrainer.attacked: expected none, since weights and images share a pass back, received a network; "
                "leave it out, or take RobustTrainer."
            )
        if self.alternations != 1 or isinstance(self.method, Standard):
            raise UserError(
                f"FreeTrainer: expected a method whose loss sees adversarial images, and 1 alternation, received "
                f"{self.method!r} and {self.alternations}."
            )
        if not isinstance(self.attack, PGD):
            raise UserError(
                f"FreeTrainer.attack: expected PGD (its threat, step size, start), received {self.attack!r}."
            )
        self._pgd = self.attack
        if self.perturbation != Identity():
            raise UserError(
                f"FreeTrainer.perturbation: expected Identity(), since replays reuse one gradient for all, received "
                f"{self.perturbation!r}; take RobustTrainer (Recipe.replays = 1)."
            )
        self.replays = replays
        self._compiled_both = compiled(self._both, uses_xla(settings.get("xla", "auto")))

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """As RobustTrainer.train_step; "loss" is the mean over the replays."""
        everything = examples(data, self.network.outputs[0].shape[-1])
        measured, batch = self._metric_values(everything), share_of(everything)
        losses, delta = [], None
        for _ in range(self.replays):
            now = self._now(batch)
            attack = at_epoch(self._pgd, now.epoch, batch.x.dtype)
            if delta is None:
                seed = noise.make_seed(self.seed, noise.ATTACK, now.step)._replace(first=batch.first)
                delta = clip_delta(attack.start(attack.threat, batch.x, seed), batch.x)
            loss, gradients, slope, new_state = self._compiled_both(now, tf.clip_by_value(batch.x + delta, 0.0, 1.0))
            self._write(now, gradients, new_state)
            # In float16 it may overflow, and would spoil all replays after it.
            slope = tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope))
            moved = delta + attack.relative_step_size * attack.threat.epsilon * attack.threat.ascend(slope)
            delta = clip_delta(attack.threat.project(moved), batch.x)
            losses.append(loss)
        return {"loss": replicas.mean([mean(*losses)])[0], **self._scale_log(now), **measured}

    def _both(self, now: Now, x_adv: tf.Tensor) -> tuple[tf.Tensor, Weights, tf.Tensor, Weights]:
        """Loss, its gradient in weights (with weight decay) and in images, and the state, from one pass back."""
        loss, states = self.pure_step.outer_loss(now, now.state, x_adv)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*now.weights, x_adv])
            losses = loss(now.weights)
            total = tf.reduce_sum(losses * tf.cast(now.batch.weight, losses.dtype))
        *gradients, slope = tape.gradient(total, [*now.weights, x_adv], unconnected_gradients="zero")
        decayed = [g + self.weight_decay * w for g, w in zip(gradients, now.weights, strict=True)]
        return total, decayed, slope, states[0]
