"""The training step: worst inputs, then worst weights, then descend (Wu et al., 2020, Algorithm 1)."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.attacks import Attack, untargeted
from awp_tf.averaging import Averaging, Latest
from awp_tf.examples import examples, plainly
from awp_tf.functional import Recorder, Tensors, bind, frozen, read, require_logits
from awp_tf.infra.errors import UserError, at_least, fixed, not_negative
from awp_tf.methods import Method
from awp_tf.perturbations import Identity, Perturbation, relative_norms
from awp_tf.schedules import at_epoch


class RobustTrainer(keras.Model):
    """Trains a network with any choice of method, attack and weight perturbation.

    Works with `compile(optimizer)` and `fit` of plain Keras (arrays or datasets, sample and class weights, callbacks,
    metrics), and inside `strategy.run(trainer.train_step, ...)`. Everything random is a function of seed and the
    optimizer's step count, so a resumed run repeats what an uninterrupted one does.

    Attributes:
        network: What is trained; use it, or averaged.network, once training is over.
        averaged: Owns the network to evaluate and to save.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        method: Method,
        attack: Attack,
        perturbation: Perturbation = Identity(),
        perturb_from: float = 0.0,
        weight_decay: float = 0.0,
        alternations: int = 1,
        averaging: Callable[[keras.Model], Averaging] = Latest,
        steps_per_epoch: int = 1,
        seed: int = 0,
        xla: bool | str = "auto",
    ) -> None:
        """Create it inside strategy.scope(), like the network and the optimizer.

        Args:
            network: Maps images [B, H, W, C] in [0, 1] to logits [B, K].
            method: Inner objective and outer loss.
            attack: Maximises the objective over images.
            perturbation: Maximises the outer loss over weights.
            perturb_from: After how many epochs; before that the weights are not perturbed.
            weight_decay: Times the (perturbed) weights, added to every gradient.
            alternations: How often attack and perturbation take turns (A in the paper).
            averaging: Latest or EMA; called with network.
            steps_per_epoch: The epoch of schedules inside method, attack and perturbation.
            seed: What all noise depends on.
            xla: Compile attack and gradients; "auto" does so where there is a GPU.

        Raises:
            UserError: A setting makes no sense, or the network is no classifier of images that gives logits.
        """
        super().__init__(name="robust_trainer")
        for name, value in (("weight_decay", weight_decay), ("perturb_from", perturb_from)):
            fixed(f"RobustTrainer.{name}", value)
            not_negative(f"RobustTrainer.{name}", value)
        at_least("RobustTrainer.alternations", alternations, 1)
        require_logits(network)
        jit = _resolve_xla(xla)
        _require_synchronizable(network, jit=jit, in_loop=method.attack_in_training_mode)
        self.network = network
        self.averaged = averaging(network)
        self.averaged_network = self.averaged.network
        self.method, self.attack, self.perturbation = method, attack, perturbation
        self.perturb_from, self.weight_decay, self.alternations = perturb_from, weight_decay, alternations
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self._craft = _compiled(self._craft_pure, jit)
        self._gradients = _compiled(self._gradients_pure, jit)
        self._clean_accuracy = keras.metrics.Mean("clean_accuracy")
        self._robust_accuracy = keras.metrics.Mean("robust_accuracy")
        self.built = True  # its only weights are those of the network, which is

    def compile(self, optimizer: keras.optimizers.Optimizer, **kwargs: Any) -> None:
        """As keras.Model.compile, without a loss: that is the method's business.

        Metrics are taken on clean images in evaluation mode, which costs one more forward pass a step.
        """
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)
        self.optimizer.build(self.network.trainable_variables)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the network under training."""
        return self.network(x, training=training)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As keras.Model.fit.

        Raises:
            UserError: Pixels are not in [0, 1], or labels are not those of the network.
        """
        with plainly():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As keras.Model.evaluate; errors as in fit."""
        with plainly():
            return super().evaluate(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As keras.Model.train_on_batch; errors as in fit."""
        with plainly():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As keras.Model.test_on_batch; errors as in fit."""
        with plainly():
            return super().test_on_batch(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the network alone (averaged.network), which is all that others need; so does ModelCheckpoint."""
        self.averaged.network.save(*args, **kwargs)

    def train_step(self, batch: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One step on images [B, H, W, C] and labels [B], and weights [B] of the examples where there are any.

        Returns:
            "loss", the outer loss at the nearby weights, and ||v|| / ||w|| per group of layers; the
            same on every replica.
        """
        x, y, sample_weight = examples(batch, self.network.outputs[0].shape[-1])
        step = tf.convert_to_tensor(self.optimizer.iterations.value)
        epoch = tf.cast(step, tf.float64) / self.steps_per_epoch
        weights = read(self.network.trainable_variables)
        state = read(self.network.non_trainable_variables)

        measured = self._measured(x, y, sample_weight)
        x_adv, nearby = self._search(weights, state, x, y, sample_weight, epoch, step)
        loss, gradients, state = self._gradients(nearby, state, x, x_adv, y, sample_weight, epoch)
        self._write(nearby, gradients, state, step)
        sizes = relative_norms([v.path for v in self.network.trainable_variables], weights, nearby)
        return {"loss": replicas.mean([loss])[0], **sizes, **measured}

    def test_step(self, batch: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Accuracy on clean images and under the training attack, the network in evaluation mode."""
        x, y, sample_weight = examples(batch, self.network.outputs[0].shape[-1])
        predict = frozen(self.network)
        epoch = tf.cast(self.optimizer.iterations.value, tf.float64) / self.steps_per_epoch
        attack = at_epoch(self.attack, epoch, x.dtype)
        x_adv = attack(untargeted(predict, y), x, noise.make_seed(self.seed, noise.EVALUATION))
        before, after = (tf.argmax(predict(images), -1) == tf.cast(y, tf.int64) for images in (x, x_adv))
        for metric, right in ((self._clean_accuracy, before), (self._robust_accuracy, before & after)):
            metric.update_state(tf.cast(right, tf.float32), sample_weight)
        accuracies = {m.name: m.result() for m in (self._clean_accuracy, self._robust_accuracy)}
        return {**accuracies, **self._measured(x, y, sample_weight)}

    def _measured(self, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """The metrics that compile was given."""
        if self._compile_metrics is None:
            return {}
        self._compile_metrics.update_state(y, frozen(self.network)(x), sample_weight)
        return dict(self._compile_metrics.result())

    def _search(
        self,
        weights: Tensors,
        state: Tensors,
        x: tf.Tensor,
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        epoch: tf.Tensor,
        step: tf.Tensor,
    ) -> tuple[tf.Tensor, Tensors]:
        """The worst inputs and the worst weights, found in turns; each turn goes on from the last."""
        perturbation = at_epoch(self.perturbation, epoch, weights[0].dtype)
        x_adv, nearby, start = None, weights, None
        for turn in range(self.alternations):
            seed = replicas.share(noise.make_seed(self.seed, noise.ATTACK, step, turn))
            x_adv = self._craft(nearby, state, x, y, epoch, seed, x_adv)

            def ascent(at: Tensors, x_adv: tf.Tensor = x_adv) -> Tensors:
                return replicas.mean(self._gradients(at, state, x, x_adv, y, sample_weight, epoch)[1])

            same_everywhere = noise.make_seed(self.seed, noise.WEIGHTS, step, turn)
            worst = perturbation(weights, ascent, same_everywhere, start)
            # The pass is made in either case: replicas cannot meet inside a tf.cond.
            begun = epoch >= self.perturb_from
            nearby = start = [tf.where(begun, n, w) for n, w in zip(worst, weights, strict=True)]
        return x_adv, nearby

    def _craft_pure(
        self,
        weights: Tensors,
        state: Tensors,
        x: tf.Tensor,
        y: tf.Tensor,
        epoch: tf.Tensor,
        seed: noise.Seed,
        start: tf.Tensor | None,
    ) -> tf.Tensor:
        method, attack = at_epoch(self.method, epoch, x.dtype), at_epoch(self.attack, epoch, x.dtype)
        predict = bind(self.network, weights, state, training=method.attack_in_training_mode)
        return attack(method.objective(predict, x, y), x, seed, start)

    def _gradients_pure(
        self,
        weights: Tensors,
        state: Tensors,
        x: tf.Tensor,
        x_adv: tf.Tensor,
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
        epoch: tf.Tensor,
    ) -> tuple[tf.Tensor, Tensors, Tensors]:
        """Outer loss, its gradient at weights, and the state its forward passes leave behind."""
        predict = Recorder(self.network, weights, state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            losses = at_epoch(self.method, epoch, x.dtype).loss(predict, x, x_adv, y)
            if sample_weight is not None:  # as Keras: the mean is over the examples, not over their weights
                losses *= tf.cast(sample_weight, losses.dtype)
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, weights, unconnected_gradients="zero"), predict.state

    def _write(self, nearby: Tensors, gradients: Tensors, state: Tensors, step: tf.Tensor) -> None:
        """The only place that changes variables. Keras optimizers sum what they are given over the replicas."""
        decayed = [(g + self.weight_decay * w) / replicas.count() for g, w in zip(gradients, nearby, strict=True)]
        self.optimizer.apply(decayed, self.network.trainable_variables)
        for variable, value in zip(self.network.non_trainable_variables, replicas.mean(state), strict=True):
            variable.assign(value)
        self.averaged.update(step)


def _compiled(function: Callable[..., Any], jit: bool) -> Callable[..., Any]:
    return tf.function(function, jit_compile=True, autograph=False) if jit else function


def _require_synchronizable(network: keras.Model, *, jit: bool, in_loop: bool) -> None:
    """Statistics over all replicas meet in the middle of a pass, which neither XLA nor a loop allows."""
    synchronized = any(getattr(layer, "synchronized", False) for layer in network._flatten_layers())  # noqa: SLF001
    if synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1 and (jit or in_loop):
        why = "XLA (say xla=False)" if jit else "an attack in training mode (say attack_in_training_mode=False)"
        raise UserError(f"{network.name}: synchronized=True on several devices does not work with {why}.")


def _resolve_xla(xla: bool | str) -> bool:
    if xla not in (True, False, "auto"):
        raise UserError(f'RobustTrainer.xla: expected True, False or "auto", received {xla!r}.')
    return bool(tf.config.list_logical_devices("GPU")) if xla == "auto" else bool(xla)
