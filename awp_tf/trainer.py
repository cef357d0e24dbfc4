"""The training step: worst inputs, then worst weights, then descend (Wu et al., 2020, Algorithm 1)."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.attacks import Attack, untargeted
from awp_tf.averaging import Averaging, Latest
from awp_tf.box import PIXELS
from awp_tf.examples import examples, plainly, share_of
from awp_tf.functional import (
    predictor,
    read,
    require_logits,
    require_smooth,
    require_synchronizable,
    robust,
    uses_xla,
)
from awp_tf.infra.errors import UserError, at_least, fixed, not_negative
from awp_tf.infra.keras_layers import say_of_unsafe_gradients
from awp_tf.loss_scale import in_float16, settled
from awp_tf.losses import classes_of, correct
from awp_tf.methods import Method
from awp_tf.micro_batches import MicroBatchStep
from awp_tf.perturbations import Identity, Perturbation, relative_norms
from awp_tf.schedules import at_epoch
from awp_tf.step import ClassifierStep, Now
from awp_tf.transforms import NoTransform, Transform
from awp_tf.types import Batch, Weights


class RobustTrainer(keras.Model):
    """Trains a network with any choice of method, attack and weight perturbation.

    Works with `compile(optimizer)` and `fit` of plain Keras (arrays or datasets, sample and class weights, callbacks,
    metrics), and inside `strategy.run(trainer.train_step, ...)`. Everything random is a function of seed and the
    optimizer's step count, so a resumed run repeats what an uninterrupted one does.

    Attributes:
        network: What is trained; use it, or averaged.network, once training is over.
        averaged: Owns the network to evaluate and to save.
        pure_step: Searches and gradients as functions of explicit weights.

    Example:
        >>> from awp_tf import attacks, data, methods, networks, optimizers, perturbations, threats
        >>> network, train = networks.small_cnn(shape=(8, 8, 1), classes=10), data.digits().train.take(slice(64))
        >>> attack, awp = attacks.PGD(threats.Linf(0.15)), perturbations.AWP(gamma=0.005)
        >>> trainer = RobustTrainer(network, method=methods.TRADES(), attack=attack, perturbation=awp)
        >>> trainer.compile(optimizers.SGD(0.05))
        >>> sorted(trainer.fit(train.images, train.labels, verbose=0).history)[:2]
        ['loss', 'v_over_w/conv1']
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        method: Method,
        attack: Attack,
        attacked: keras.Model | None = None,
        perturbation: Perturbation = Identity(),
        perturb_from: float = 0.0,
        transform: Transform = NoTransform(),
        weight_decay: float = 0.0,
        alternations: int = 1,
        accumulation: int = 1,
        m_sharpness: bool = False,
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
            attacked: The same network built in another precision, which the attack sees, at the weights of network;
                its own are not used. None is network itself.
            perturbation: Maximises the outer loss over weights.
            perturb_from: After how many epochs, of steps_per_epoch updates; before that the weights are not perturbed.
            transform: Changes the gradient of the global batch before the optimizer takes it.
            weight_decay: Times the perturbed weights (SAM, ASAM: the weights themselves), added to every gradient.
            alternations: How often attack and perturbation take turns (A in the paper).
            accumulation: Into how many parts a replica's share is cut, which pass through the network one after the
                other (awp_tf.micro_batches): for a batch that does not fit into memory.
            m_sharpness: Each replica takes the worst weights of its own share of the batch, as SAM does (Foret et al.,
                ICLR 2021, section 4.1), in place of those of the whole batch (AWP): a reduction of gradients less.
            averaging: Latest, EMA or SWA; called with network. What fit and evaluate report is of network; save, and
                ModelCheckpoint of whole models, keep averaged.network. After fit call averaged.refresh(batches, epochs)
                where its BatchNorm statistics are to be "recalibrated" (SWA's default); pipelines.train does so.
            steps_per_epoch: How many updates an epoch has, for perturb_from, SWA, and schedules in method, attack,
                perturbation and transform; with 1 they all count updates.
            seed: What all noise depends on.
            xla: Compile attack and gradients; "auto" does so where there is a GPU that need not be deterministic.

        Raises:
            UserError: A setting makes no sense, or the network is no classifier of images that gives logits.
        """
        super().__init__(name="robust_trainer")
        for name, value in (("weight_decay", weight_decay), ("perturb_from", perturb_from)):
            fixed(f"RobustTrainer.{name}", value)
            not_negative(f"RobustTrainer.{name}", value)
        at_least("RobustTrainer.alternations", alternations, 1)
        at_least("RobustTrainer.accumulation", accumulation, 1)
        require_logits(network)
        jit = uses_xla(xla)
        require_synchronizable(network, jit=jit, attacked=method.attack_in_training_mode, in_parts=accumulation > 1)
        if not isinstance(perturbation, Perturbation):
            raise UserError(
                f"RobustTrainer.perturbation: expected a Perturbation, received {perturbation!r}; subclass it."
            )
        if getattr(attack, "box", PIXELS) != PIXELS:
            raise UserError(f"RobustTrainer.attack: expected the box of pixels, (0, 1), received {attack.box!r}.")  # type: ignore[attr-defined]
        if perturbation.needs_second_derivatives:
            require_smooth(network)
        if attacked and [v.shape for v in attacked.variables] != [v.shape for v in network.variables]:
            raise UserError(
                f"RobustTrainer.attacked: expected {network.name} once more, built under another policy of Keras, "
                f"received {attacked.name} with other variables."
            )
        self.network = network
        self.averaged = averaging(network)
        self.averaged_network = self.averaged.network
        self.method, self.attack, self.perturbation, self.transform = method, attack, perturbation, transform
        self.perturb_from, self.weight_decay, self.alternations = perturb_from, weight_decay, alternations
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        kind = functools.partial(MicroBatchStep, parts=accumulation) if accumulation > 1 else ClassifierStep
        self.pure_step = kind(
            network,
            method=method,
            attack=attack,
            attacked=attacked,
            perturbation=perturbation,
            perturb_from=perturb_from,
            weight_decay=weight_decay,
            alternations=alternations,
            seed=seed,
            jit=jit,
            m_sharpness=m_sharpness,
        )
        self._clean_accuracy = keras.metrics.Mean("clean_accuracy")
        self._robust_accuracy = keras.metrics.Mean("robust_accuracy")
        self.built = True  # its only weights are those of the network, which is

    def compile(self, optimizer: keras.optimizers.Optimizer | str, **kwargs: Any) -> None:
        """As keras.Model.compile, without a loss: that is the method's business.

        Metrics are taken on clean images in evaluation mode, which costs one more forward pass a step. For a network in
        float16 the optimizer is wrapped in keras.optimizers.LossScaleOptimizer, unless it is one.

        Raises:
            UserError: A loss is given, or the optimizer does not step at every batch.
        """
        if kwargs.get("loss") is not None:
            raise UserError("RobustTrainer.compile: expected no loss: the method has its own (method=TRADES(), say).")
        optimizer = keras.optimizers.get(optimizer)
        every = getattr(optimizer, "inner_optimizer", optimizer).gradient_accumulation_steps
        if every and every > 1:
            raise UserError(
                f"RobustTrainer.compile: expected an optimizer that steps at every batch, received one with "
                f"gradient_accumulation_steps={every}; say accumulation={every} in place of it."
            )
        if in_float16(self.network) and not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        say_of_unsafe_gradients(self.network)
        super().compile(optimizer=optimizer, jit_compile=False, auto_scale_loss=False, **kwargs)
        self.optimizer.build(self.network.trainable_variables)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the network under training."""
        return self.network(x, training=training)

    # As Keras', but what does not fit (pixels outside [0, 1], unknown labels) is one line: a UserError.
    fit, evaluate = plainly()(keras.Model.fit), plainly()(keras.Model.evaluate)
    train_on_batch, test_on_batch = plainly()(keras.Model.train_on_batch), plainly()(keras.Model.test_on_batch)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the network alone (averaged.network), which is all that others need; so does ModelCheckpoint."""
        self.averaged.network.save(*args, **kwargs)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """One step (Algorithm 1) on images [B, H, W, C], labels [B] or probabilities [B, K], and weights [B], if any.

        Returns:
            "loss", the outer loss at the nearby weights, and ||v|| / ||w|| per group of layers; the
            same on every replica.
        """
        batch = examples(data, self.network.outputs[0].shape[-1])
        measured = self._metric_values(batch)
        now = self._now(share_of(batch))

        # Algorithm 1 of the paper: x' and v in turns, then w <- (w + v) - eta grad - v, in which v is never written.
        x_adv, points, states = self.pure_step.search(now)
        loss, gradients, new_state = self.pure_step.descent(now, points, states, x_adv)
        self._write(now, gradients, new_state)
        sizes = relative_norms([v.path for v in self.network.trainable_variables], now.weights, points)
        means = replicas.mean([loss, *sizes.values()])
        return {**dict(zip(("loss", *sizes), means, strict=True)), **self._scale_log(now), **measured}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Accuracy of network (not of its average), clean and under the training attack, in evaluation mode."""
        batch = examples(data, self.network.outputs[0].shape[-1])
        predict, x, labels = predictor(self.network), batch.x, classes_of(batch.y)
        epoch = tf.cast(self.optimizer.iterations.value, tf.float64) / self.steps_per_epoch
        attack = at_epoch(self.attack, epoch, x.dtype)
        seed = noise.make_seed(self.seed, noise.EVALUATION)._replace(first=share_of(batch).first)
        x_adv = attack(untargeted(predict, batch.y), x, seed)
        self._clean_accuracy.update_state(correct(predict(x), labels), batch.weight)
        self._robust_accuracy.update_state(robust(predict, x, x_adv, labels), batch.weight)
        accuracies = {m.name: m.result() for m in (self._clean_accuracy, self._robust_accuracy)}
        return {**accuracies, **self._metric_values(batch)}

    def _metric_values(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The metrics that compile was given."""
        if self._compile_metrics is None:
            return {}
        self._compile_metrics.update_state(batch.y, predictor(self.network)(batch.x), batch.weight)
        return dict(self._compile_metrics.result())

    def _scale_log(self, now: Now) -> dict[str, tf.Tensor]:
        """By how much gradients are scaled, in float16: a loss that is not finite is no error then."""
        return {"loss_scale": now.loss_scale} if in_float16(self.network) else {}

    def _now(self, batch: Batch) -> Now:
        """Where training stands, at a replica's share of a batch."""
        step = tf.convert_to_tensor(self.optimizer.iterations.value)
        epoch = tf.cast(step, tf.float64) / self.steps_per_epoch
        weights, state = read(self.network.trainable_variables), read(self.network.non_trainable_variables)
        return Now(weights, state, batch, epoch, step, loss_scale=self.optimizer.scale_loss(tf.ones([])))

    def _write(self, now: Now, gradients: Weights, state: Weights) -> None:
        """The only place that changes variables. Keras optimizers sum what they are given over the replicas."""
        transform = at_epoch(self.transform, now.epoch, now.weights[0].dtype)
        descent = transform(replicas.mean(gradients), now.weights)
        shares = [self.optimizer.scale_loss(g / replicas.count()) for g in descent]  # which it undoes
        self.optimizer.apply(shares, self.network.trainable_variables)
        # Epochs count batches, also those whose step is left out in float16, since a gradient overflowed.
        self.optimizer.iterations.assign(now.step + 1)
        state = settled(self.network, shares, now.state, replicas.mean(state))
        for variable, value in zip(self.network.non_trainable_variables, state, strict=True):
            variable.assign(value)
        self.averaged.update(now.step, tf.cast(now.step + 1, tf.float64) / self.steps_per_epoch)
