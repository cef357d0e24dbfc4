"""SGD exactly as PyTorch computes it."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from awp_tf import replicas
from awp_tf.infra.errors import fraction


@keras.saving.register_keras_serializable(package="awp_tf")
class SGD(keras.optimizers.Optimizer):
    """m <- momentum m + g; w <- w - lr m (Nesterov: w <- w - lr (g + momentum m)).

    Keras' own SGD keeps the learning rate inside the velocity, which differs after every change of
    the rate. Weight decay belongs to RobustTrainer: the AWP reference takes it at the perturbed weights.

    Example:
        >>> import tensorflow as tf
        >>> import keras
        >>> from awp_tf.optimizers import SGD
        >>> weight, optimizer = keras.Variable(1.0), SGD(0.1, momentum=0.9)
        >>> for _ in range(2):
        ...     optimizer.apply([tf.constant(1.0)], [weight])
        >>> round(float(weight), 3)  # 1 - 0.1 (1) - 0.1 (0.9 + 1)
        0.71
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        name: str = "sgd",
    ) -> None:
        """Create it inside strategy.scope().

        Args:
            learning_rate: A number or a schedule of steps.
            momentum: In [0, 1).
            nesterov: Look one step ahead (RST and pre-training do).
            name: The optimizer's name.

        Raises:
            UserError: momentum is not in [0, 1).
        """
        super().__init__(learning_rate=learning_rate, name=name)
        fraction("SGD.momentum", momentum)
        self.momentum = momentum
        self.nesterov = nesterov

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates one velocity per variable."""
        if not self.built:
            super().build(variables)
            self._velocities = self.add_optimizer_variables(variables, "velocity")

    def forget(self) -> None:
        """Sets all velocities back to 0; step count and rate stay."""
        for velocity in self._velocities:
            velocity.assign(tf.zeros_like(velocity))

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """One step of one variable."""
        velocity = self._velocities[self._get_variable_index(variable)]
        rate = tf.cast(learning_rate, gradient.dtype)
        new = self.momentum * velocity + gradient
        self.assign(velocity, new)
        self.assign_sub(variable, rate * (gradient + self.momentum * new if self.nesterov else new))

    def _all_reduce_sum_gradients(self, grads_and_vars: Iterable[tuple[tf.Tensor, Any]]) -> list[tuple[tf.Tensor, Any]]:
        """Keras' own gives the same sums, but takes minutes to trace on several devices; see replicas."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        return list(zip(replicas.total(gradients), variables, strict=True))

    def get_config(self) -> dict[str, object]:
        """What __init__ takes."""
        config = super().get_config()
        return {
            "learning_rate": config["learning_rate"],
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "name": self.name,
        }
