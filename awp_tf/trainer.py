"""The training step: worst inputs, then worst weights, then descend (Wu et al., 2020, Algorithm 1)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.attacks import Attack, untargeted
from awp_tf.averaging import Averaging, Latest
from awp_tf.examples import examples, plainly
from awp_tf.functional import (
    Recorder,
    bind,
    compiled,
    predictor,
    read,
    require_logits,
    require_synchronizable,
    robust,
    uses_xla,
)
from awp_tf.infra.errors import at_least, fixed, not_negative
from awp_tf.losses import classes_of, correct
from awp_tf.methods import Method
from awp_tf.perturbations import Identity, Perturbation, relative_norms
from awp_tf.schedules import at_epoch
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
        perturbation: Perturbation = Identity(),
        perturb_from: float = 0.0,
        transform: Transform = NoTransform(),
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
            transform: Changes the gradient of the global batch before the optimizer takes it.
            weight_decay: Times the (perturbed) weights, added to every gradient.
            alternations: How often attack and perturbation take turns (A in the paper).
            averaging: Latest, EMA or SWA; called with network.
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
        jit = uses_xla(xla)
        require_synchronizable(network, jit=jit, in_loop=method.attack_in_training_mode)
        self.network = network
        self.averaged = averaging(network)
        self.averaged_network = self.averaged.network
        self.method, self.attack, self.perturbation, self.transform = method, attack, perturbation, transform
        self.perturb_from, self.weight_decay, self.alternations = perturb_from, weight_decay, alternations
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self._craft = compiled(self._craft_pure, jit)
        self._gradients = compiled(self._gradients_pure, jit)
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
        step = tf.convert_to_tensor(self.optimizer.iterations.value)
        epoch = tf.cast(step, tf.float64) / self.steps_per_epoch
        weights = read(self.network.trainable_variables)
        state = read(self.network.non_trainable_variables)
        measured = self._metric_values(batch)
        share = _share(batch)

        # Algorithm 1 of the paper: x' and v in turns, then w <- (w + v) - eta grad - v, in which v is never written.
        x_adv, points = self._search(weights, state, share, epoch, step)
        loss, gradients, new_state = self._at_points(points, state, share, x_adv, epoch)
        self._write(weights, gradients, new_state, epoch, step)
        sizes = relative_norms([v.path for v in self.network.trainable_variables], weights, points)
        return {"loss": replicas.mean([loss])[0], **sizes, **measured}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Accuracy on clean images and under the training attack, the network in evaluation mode."""
        batch = examples(data, self.network.outputs[0].shape[-1])
        predict, x, labels = predictor(self.network), batch.x, classes_of(batch.y)
        epoch = tf.cast(self.optimizer.iterations.value, tf.float64) / self.steps_per_epoch
        attack = at_epoch(self.attack, epoch, x.dtype)
        seed = noise.make_seed(self.seed, noise.EVALUATION)._replace(first=_share(batch).first)
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

    def _search(
        self, weights: Weights, state: Weights, batch: Batch, epoch: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Sequence[Weights]]:
        """The worst inputs and the worst weights, found in turns; each turn goes on from the last."""
        perturbation = at_epoch(self.perturbation, epoch, weights[0].dtype)
        x_adv, start = None, None
        points: Sequence[Weights] = [weights]
        for turn in range(self.alternations):
            seed = noise.make_seed(self.seed, noise.ATTACK, step, turn)._replace(first=batch.first)
            x_adv = self._craft(points[0], state, batch, epoch, seed, x_adv)

            def ascent(at: Weights, x_adv: tf.Tensor = x_adv) -> Weights:
                return replicas.mean(self._gradients(at, state, batch, x_adv, epoch)[1])

            same_everywhere = noise.make_seed(self.seed, noise.WEIGHTS, step, turn)
            worst = perturbation(weights, ascent, same_everywhere, start)
            # The pass is made in either case: replicas cannot meet inside a tf.cond.
            begun = epoch >= self.perturb_from
            points = start = [[tf.where(begun, n, w) for n, w in zip(at, weights, strict=True)] for at in worst]
        return x_adv, points

    def _craft_pure(
        self,
        weights: Weights,
        state: Weights,
        batch: Batch,
        epoch: tf.Tensor,
        seed: noise.Seed,
        start: tf.Tensor | None,
    ) -> tf.Tensor:
        method, attack = at_epoch(self.method, epoch, batch.x.dtype), at_epoch(self.attack, epoch, batch.x.dtype)
        predict = bind(self.network, weights, state, training=method.attack_in_training_mode)
        return attack(method.objective(predict, batch.x, batch.y), batch.x, seed, start)

    def _at_points(
        self, points: Sequence[Weights], state: Weights, batch: Batch, x_adv: tf.Tensor, epoch: tf.Tensor
    ) -> tuple[tf.Tensor, Weights, Weights]:
        """The mean over the points of the loss, its gradient with weight decay, and the state."""
        found = []
        for at in points:
            loss, gradients, new = self._gradients(at, state, batch, x_adv, epoch)
            decayed = [g + self.weight_decay * w for g, w in zip(gradients, at, strict=True)]
            found.append((loss, decayed, new))
        return tf.nest.map_structure(lambda *values: _mean(values), *found)

    def _gradients_pure(
        self, weights: Weights, state: Weights, batch: Batch, x_adv: tf.Tensor, epoch: tf.Tensor
    ) -> tuple[tf.Tensor, Weights, Weights]:
        """Outer loss, its gradient at weights, and the state its forward passes leave behind."""
        predict = Recorder(self.network, weights, state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            losses = at_epoch(self.method, epoch, batch.x.dtype).loss(predict, batch.x, x_adv, batch.y)
            loss = tf.reduce_sum(losses * tf.cast(batch.weight, losses.dtype))
        return loss, tape.gradient(loss, weights, unconnected_gradients="zero"), predict.state

    def _write(self, weights: Weights, gradients: Weights, state: Weights, epoch: tf.Tensor, step: tf.Tensor) -> None:
        """The only place that changes variables. Keras optimizers sum what they are given over the replicas."""
        transform = at_epoch(self.transform, epoch, weights[0].dtype)
        descent = transform(replicas.mean(gradients), weights)
        self.optimizer.apply([g / replicas.count() for g in descent], self.network.trainable_variables)
        for variable, value in zip(self.network.non_trainable_variables, replicas.mean(state), strict=True):
            variable.assign(value)
        self.averaged.update(step, tf.cast(step + 1, tf.float64) / self.steps_per_epoch)


def _share(batch: Batch) -> Batch:
    """A replica's share, with its place, and weights that make a sum over it the mean over the global batch.

    As in Keras, the mean is over the examples, not over their weights; replicas may have unequal shares.
    """
    first, everything = replicas.place(tf.shape(batch.x)[0])
    mean_share = tf.cast(everything, batch.weight.dtype) / replicas.count()
    return batch._replace(weight=batch.weight / mean_share, first=first)


def _mean(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Over the points; counters are the same at all of them."""
    return tf.add_n(values) / len(values) if values[0].dtype.is_floating else values[0]
