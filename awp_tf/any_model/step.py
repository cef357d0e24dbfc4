"""The pure part of a step with the loss, the metrics and the data that a Keras model was compiled for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from awp_tf import noise, replicas
from awp_tf.any_model.places import Place
from awp_tf.any_model.requirements import require_no_write
from awp_tf.any_model.scope import Scope
from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import Loss, Points
from awp_tf.schedules import at_epoch
from awp_tf.step import Now, Step
from awp_tf.types import Weights


class KerasBatch(NamedTuple):
    """What `fit` hands to a step.

    Attributes:
        x: Inputs, nested as the model takes them.
        y: Targets, nested as its losses take them.
        sample_weight: The same, or None.
        weight: Of compile's loss, a scalar: what the optimizer scales it by.
        first: The place of the first example in the global batch.
    """

    x: Any
    y: Any
    sample_weight: Any
    weight: tf.Tensor
    first: tf.Tensor | int = 0


class Measured(NamedTuple):
    """A state, taken apart.

    Attributes:
        statistics: Of the model's non-trainable variables.
        metrics: Of its metrics' variables.
        others: Of variables that a pass writes and no list of the model names.
        logs: What compute_metrics gave.
    """

    statistics: Weights
    metrics: Weights
    others: Weights
    logs: Weights


class KerasStep(Step):
    """A step of any compiled model; what Keras' own train_step does, but for the optimizer, at explicit weights.

    A state is flat: see Measured. Each pass starts its metrics from their values before the step, not from what another
    pass has left.

    Attributes:
        connected: Which trainable variables the loss depends on, as the last pass was traced.
        others: The variables of Measured.others, as the last pass was traced.
        logs_like: The structure of Measured.logs.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        attack: PGD | None,
        place: Place | None,
        begun: Callable[[Now], Any],
        **settings: Any,
    ) -> None:
        """See PerturbedModel and Step; begun says whether weights are perturbed by now."""
        super().__init__(**settings)
        self._model, self._attack, self._place, self._has_begun = model, attack, place, begun
        self.connected = [True] * len(model.trainable_variables)
        self.others: list[keras.Variable] = []
        self.logs_like: Any = {}

    def apart(self, state: Weights) -> Measured:
        """A state that a pass has left."""
        ends = [len(self._model.non_trainable_variables), len(self._model.metrics_variables), len(self.others)]
        first, second, third = (sum(ends[: k + 1]) for k in range(3))
        return Measured(state[:first], state[first:second], state[second:third], state[third:])

    def outer_loss(self, now: Now, state: Weights, x_adv: tf.Tensor | None) -> tuple[Loss, list[Weights]]:
        """See Step; x_adv is what the attack adds at its place."""
        statistics = state[: len(self._model.non_trainable_variables)]
        begin = [*statistics, *now.state[len(statistics) :]]
        states: list[Weights] = []

        def loss(weights: Weights) -> tf.Tensor:
            value, new = self._measured(now.batch, weights, begin, x_adv)
            states.append(new)
            return value

        return loss, states

    def _craft_pure(self, weights: Weights, now: Now, seed: noise.Seed, start: Any) -> tf.Tensor | None:
        if self._attack is None or self._place is None:
            return None
        with self._scope(weights, now.state):
            here = self._place.read(self._call, now.batch.x)

        def objective(there: tf.Tensor) -> tf.Tensor:
            with self._scope(weights, now.state):
                value, _ = self._loss(now.batch, there - here)
            return value * tf.cast(now.batch.weight, value.dtype)

        attack = at_epoch(self._attack, now.epoch, here.dtype)
        return tf.stop_gradient(attack(objective, here, seed) - here)

    def _measured(
        self, batch: KerasBatch, weights: Weights, state: Weights, shift: tf.Tensor | None
    ) -> tuple[tf.Tensor, Weights]:
        """The loss of a pass, and the state that it leaves."""
        model = self._model
        with self._scope(weights, state) as scope:
            loss, y_pred = self._loss(batch, shift)
            mean_loss = loss * replicas.count()  # of this replica: Keras divides it, so that replicas add up
            model._loss_tracker.update_state(mean_loss, sample_weight=rows(batch.x))  # noqa: SLF001
            logs = model.compute_metrics(batch.x, batch.y, y_pred, sample_weight=batch.sample_weight)
            known = [*model.non_trainable_variables, *model.metrics_variables]
            require_no_write(model, scope.written)
            self.others = [v for v in scope.written if all(v is not k for k in known)]
            self.logs_like = keras.tree.map_structure(lambda _: 0, logs)
            new = [scope.get_current_value(v) for v in (*known, *self.others)]
        return loss, [*new, *map(tf.convert_to_tensor, keras.tree.flatten(logs))]

    def _loss(self, batch: KerasBatch, shift: tf.Tensor | None) -> tuple[tf.Tensor, Any]:
        """Compile's loss, regularisers and add_loss included, and the outputs; to be called in a scope."""
        model = self._model
        y_pred = self._call(batch.x) if shift is None else self._place.shifted(self._call, batch.x, shift)  # type: ignore[union-attr]
        loss = model._compute_loss(batch.x, batch.y, y_pred, batch.sample_weight, training=True)  # noqa: SLF001
        return loss, y_pred

    def _scope(self, weights: Weights, state: Weights) -> Scope:
        """In which the model's variables have given values, and none is written."""
        model = self._model
        variables = [*model.trainable_variables, *model.non_trainable_variables, *model.metrics_variables]
        if len(variables) != len(weights) + len(state):
            raise UserError(
                f"model: expected all weights to be there before training, received {model.name!r}, which made some in "
                "its first step; call it once on a batch with training=True before awp_tf.perturbed."
            )
        return Scope(list(zip(variables, [*weights, *state], strict=True)))

    def _call(self, x: Any) -> Any:
        takes_training = "training" in self._model.call_signature_parameters
        return self._model(x, training=True) if takes_training else self._model(x)

    def _begun(self, now: Now, points: Points) -> tf.Tensor:
        # Gradients that overflow in 16 bits lead nowhere; the optimizer is going to skip such a step.
        finite = [tf.reduce_all(tf.math.is_finite(w)) for point in points for w in point]
        return tf.reduce_all(tf.stack([self._has_begun(now), *finite]))

    def _gradient(self, tape: tf.GradientTape, total: tf.Tensor, weights: Weights) -> Weights:
        gradients = tape.gradient(total, weights)
        self.connected = [g is not None for g in gradients]  # Keras leaves the others alone
        return [tf.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)]


def rows(x: Any) -> tf.Tensor:
    """How many examples inputs hold, as Keras counts them."""
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
