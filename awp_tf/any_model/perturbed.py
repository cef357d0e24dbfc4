"""One line around a Keras model: trained at perturbed weights, with everything else as Keras does it."""

import functools
import inspect
from typing import Any

import keras
import tensorflow as tf

from awp_tf import replicas
from awp_tf.any_model.clock import NOT_FINITE, NOT_FINITE_ADVICE, Clock, SetClock, require_finite
from awp_tf.any_model.places import place
from awp_tf.any_model.requirements import (
    require_connected,
    require_no_meeting,
    require_plain,
    require_settings,
    require_trainable,
)
from awp_tf.any_model.step import KerasBatch, KerasStep, Measured, rows
from awp_tf.any_model.wrapper import Wrapper
from awp_tf.attacks import PGD
from awp_tf.examples import plainly
from awp_tf.functional import read, require_smooth
from awp_tf.infra.errors import UserError, whole_seed
from awp_tf.infra.keras_layers import say_of_unsafe_gradients
from awp_tf.perturbations import Perturbation, Where
from awp_tf.perturbations.where import Choice
from awp_tf.step import Now
from awp_tf.types import Weights

_FIT = inspect.signature(keras.Model.fit)


def perturbed(
    model: keras.Model,
    perturbation: Perturbation,
    *,
    start: float = 0.0,
    where: Choice | None = None,
    attack: PGD | None = None,
    on: str | None = None,
    seed: int = 0,
) -> "PerturbedModel":
    """A model to compile and fit in place of another one, whose weights it trains at perturbed weights.

    Each step takes its gradient at weights that a perturbation has moved (AWP: Wu et al., NeurIPS 2020; SAM: Foret et
    al., ICLR 2021; ...) and applies it to the weights themselves, which are never written while they are moved.

    Args:
        model: Any built Keras model that trains by Keras' own train_step: Sequential, functional or subclassed.
        perturbation: AWP, SAM, ASAM, RandomPerturbation, ...; Identity() where only inputs are to be perturbed.
        start: From when on: a share of the run of `fit`, a float in [0, 1), or an update of the optimizer, an int.
        where: Which weights: None leaves it to the perturbation (AWP moves tensors of rank 2 and more, SAM all); a
            regular expression that is searched in the variables' paths, or a function of a path.
        attack: A PGD or FGSM that perturbs inputs in every step, too, with compile's own loss, the model in training
            mode (one Dropout mask for all steps of a batch). Its box is that of pixels unless it says another.
        on: What it perturbs: the name of an input of floats, or of a layer, whose output moves, such as an Embedding;
            None is the only input.
        seed: What the noise of perturbation and attack depends on.

    Raises:
        UserError: The model is not built or has a train_step of its own, no weight matches, there is no such input or
            layer, or a setting makes no sense.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> import awp_tf
        >>> from awp_tf.perturbations import AWP
        >>> network = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
        >>> model = awp_tf.perturbed(network, AWP(gamma=0.01))
        >>> model.compile(optimizer="adamw", loss="mse", metrics=["mae"])
        >>> sorted(model.fit(np.ones([8, 4]), np.ones([8]), verbose=0).history)
        ['loss', 'mae']
    """
    require_plain(model)
    with model.distribute_strategy.scope():
        return PerturbedModel(model, perturbation, start=start, where=where, attack=attack, on=on, seed=seed)


class PerturbedModel(Wrapper):
    """What `perturbed` makes; `network` is the model itself, and all there is to save.

    compile hands everything to network, whose losses, metrics, test_step and predict_step are used. Metrics of training
    are those of the first pass, on what the attack made of the inputs: at the weights themselves, but for
    RandomPerturbation and RAT around Identity, which make no pass there: at the perturbed ones.

    Attributes:
        network: The model, trained in place; compiled, too, so it can be saved, and go on with plain `fit`.
    """

    def __init__(
        self,
        network: keras.Model,
        perturbation: Perturbation,
        *,
        start: float = 0.0,
        where: Choice | None = None,
        attack: PGD | None = None,
        on: str | None = None,
        seed: int = 0,
    ) -> None:
        """See perturbed, which is the way to make one."""
        super().__init__(network, name="perturbed")
        require_settings(perturbation, attack, on)
        require_no_meeting(network, attack)
        whole_seed("seed", seed)
        if perturbation.needs_second_derivatives:
            require_smooth(network)
        self._perturbation, self._where, self._seed = perturbation, where, seed
        self._attack, self._place = attack, None if attack is None else place(network, on)
        self._clock = Clock(start)
        self._step = self._make_step()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As keras.Model.compile; it is network that is compiled."""
        self.network.compile(*args, **kwargs)
        say_of_unsafe_gradients(self.network)
        super().compile(
            optimizer=self.network.optimizer,
            run_eagerly=self.network.run_eagerly,
            steps_per_execution=self.network.steps_per_execution,
            jit_compile=self.network.jit_compile,
            auto_scale_loss=False,  # network's optimizer does it where it has to be done
        )
        self._step = self._make_step()  # which weights are trainable may have changed

    @functools.wraps(keras.Model.fit, assigned=())  # its parameters; the docstring is our own
    @plainly()
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As keras.Model.fit; a loss that is not finite is a UserError."""
        given = _FIT.bind(self, *args, **kwargs).arguments
        callbacks, clock = given.get("callbacks"), SetClock(self._clock)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            given["callbacks"] = [*keras.tree.flatten(callbacks or []), clock]
            return keras.Model.fit(**given)
        clock.set_model(self)
        clock.set_params(callbacks.params)
        callbacks.callbacks.append(clock)
        try:
            return keras.Model.fit(**given)
        finally:
            callbacks.callbacks.remove(clock)

    @plainly()
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As keras.Model.train_on_batch.

        Raises:
            UserError: start is a share of a run, which only fit knows.
        """
        if self._clock.needs_run:
            raise UserError(f"start: expected a step (a whole number) outside of fit, received {self._clock.start!r}.")
        return super().train_on_batch(*args, **kwargs)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step: worst inputs, worst weights, and the optimizer's step with the gradient there."""
        now = self._now(data)
        shift, points, states = self._step.search(now)
        loss, gradients, new_state = self._step.descent(now, points, states, shift)
        require_connected(self.network, self._step.connected, lambda: self._plain_loss(data))
        first, last = (self._step.apart(state) for state in ([*states[1:], new_state][0], new_state))
        with tf.control_dependencies(self._checks(loss)):
            self._write(gradients, last, first)
        logs: dict[str, tf.Tensor] = keras.tree.pack_sequence_as(self._step.logs_like, list(first.logs))
        return logs

    def _make_step(self) -> KerasStep:
        require_trainable(self.network)
        paths = [v.path for v in self.network.trainable_variables]
        return KerasStep(
            self.network,
            attack=self._attack,
            place=self._place,
            begun=lambda now: self._clock.begun(now.step // self._batches_of_a_step, now.epoch),
            perturbation=self._perturbation if self._where is None else Where(self._perturbation, self._where, paths),
            seed=self._seed,
        )

    @property
    def _batches_of_a_step(self) -> int:
        """More than 1 where Keras accumulates gradients."""
        return getattr(self.optimizer, "inner_optimizer", self.optimizer).gradient_accumulation_steps or 1

    def _now(self, data: Any) -> Now:
        """Where training stands, read from the variables."""
        network, optimizer = self.network, self.optimizer
        if not (optimizer.built and _built(network)):
            self._symbolic_build(data_batch=data)
        # Where Keras accumulates gradients, each of the batches that make a step has noise of its own.
        updates = tf.convert_to_tensor(optimizer.iterations)
        step = tf.convert_to_tensor(getattr(optimizer, "inner_optimizer", optimizer)._iterations)  # noqa: SLF001
        scale = tf.convert_to_tensor(optimizer.scale_loss(tf.ones([])))
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        first, _ = replicas.place(rows(x))
        state = read([*network.non_trainable_variables, *network.metrics_variables])
        batch = KerasBatch(x, y, sample_weight, scale, first)
        everywhere = scale / replicas.count()  # the mean of replicas' gradients over it is the gradient
        return Now(read(network.trainable_variables), state, batch, self._clock.epoch(updates), step, everywhere)

    def _checks(self, loss: tf.Tensor) -> list[tf.Operation]:
        """That the loss is finite; in float16 an optimizer skips such a step by itself."""
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return []
        if tf.executing_eagerly():
            require_finite(loss)
            return []
        return [tf.debugging.Assert(tf.math.is_finite(loss), [NOT_FINITE, loss, NOT_FINITE_ADVICE])]

    def _write(self, gradients: Weights, state: Measured, first: Measured) -> None:
        """The only place that changes variables; the optimizer is handed what Keras' own train_step hands it.

        Args:
            gradients: At the perturbed weights.
            state: To keep.
            first: That of the first pass, whose metrics count.
        """
        network, step = self.network, self._step
        connected = [g if holds else None for g, holds in zip(gradients, step.connected, strict=True)]
        self.optimizer.apply_gradients(zip(connected, network.trainable_variables, strict=True))
        for variable, value in zip(network.non_trainable_variables, replicas.mean(state.statistics), strict=True):
            variable.assign(value)
        for variable, value in zip(network.metrics_variables, first.metrics, strict=True):
            variable.assign(value)
        for variable, value in zip(step.others, state.others, strict=True):
            variable.assign(value)

    def _plain_loss(self, data: Any) -> tf.Tensor:
        """As Keras' own train_step has it."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred = self.network(x, training=True)
        return self.network._compute_loss(x, y, y_pred, sample_weight, training=True)  # noqa: SLF001


def _built(network: keras.Model) -> bool:
    """Whether losses and metrics of compile have made their variables."""
    parts = (network._compile_loss, network._compile_metrics)  # noqa: SLF001
    return all(part is None or part.built for part in parts)
