"""Layers with the semantics of the PyTorch reference: Normalize, BatchNorm."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from awp_tf.infra.errors import UserError

CHANNELS_LAST = "channels_last"  # said outright: a person's keras.json may say otherwise
# By Keras' names: what works on each number by itself.
ACTIVATIONS = ("relu", "silu", "gelu", "elu", "celu", "selu", "mish", "leaky_relu", "softplus", "sigmoid", "tanh")


@keras.saving.register_keras_serializable(package="awp_tf")
class Normalize(keras.layers.Layer):
    """(x - mean) / std per channel, so that everything outside the network works in [0, 1] pixels.

    Computed in float32 at least: bfloat16 cannot tell 0.998 from 1, half an epsilon of 1/255.
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None, **kwargs: Any) -> None:
        """None, None leaves pixels as they are.

        Args:
            mean: One number per channel, or one for all; None is 0.
            std: Likewise; None is 1.
            **kwargs: As for every Keras layer.

        Raises:
            UserError: A standard deviation is not above 0, or a number is not one of pixels in [0, 1].
        """
        super().__init__(**kwargs)
        self.mean = _floats("mean", mean)
        self.std = _floats("std", std)
        if self.std and min(self.std) <= 0:
            raise UserError(f"std: expected numbers > 0, received {self.std}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and max(map(abs, values)) > 1:
                raise UserError(f"{name}: expected that of pixels in [0, 1], received {values}; divide by 255.")

    def build(self, shape: Sequence[int | None]) -> None:
        """Nothing is created, but a wrong length would broadcast in silence.

        Raises:
            UserError: There is neither one number nor one for each channel.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) not in (1, shape[-1]):
                raise UserError(
                    f"{name}: expected one number, or one for each of the {shape[-1]} channels of the images, received "
                    f"{values}; bind MEAN and STD with the data (gin/data/any_tfds.gin, image_folder.gin, npz.gin)."
                )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Normalises x [B, H, W, C]."""
        return (x - tf.constant(self.mean or 0.0, x.dtype)) / tf.constant(self.std or 1.0, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """What __init__ takes."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="awp_tf")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation as PyTorch computes it.

    Running statistics move by 0.1 per training call and hold the unbiased variance, as in PyTorch;
    Keras' own layer keeps the biased one, and its second derivatives are wrong (tf.nn.moments stops
    the gradient of the mean inside the variance).
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = False, **kwargs: Any) -> None:
        """Defaults are PyTorch's.

        Args:
            momentum: What a running statistic keeps of itself per call.
            epsilon: Added to the variance.
            synchronized: In training, take the statistics over all replicas. Works outside XLA and
                outside loops, so it needs attacks in evaluation mode.
            **kwargs: As for every Keras layer.
        """
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

    def build(self, shape: Sequence[int | None]) -> None:
        """Creates gamma, beta and the running statistics."""
        channels = (shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=channels, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros")
        self.moving_mean = self.add_weight(name="moving_mean", shape=channels, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=channels, initializer="ones", trainable=False
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalises x [B, H, W, C]; where the layer is frozen, by the stored statistics in training, too."""
        return self._batch(x) if training and self.trainable else self._stored(x)

    def _stored(self, x: tf.Tensor) -> tf.Tensor:
        gamma, beta, mean, variance = self._parameters(x)
        if x.dtype in _FUSED_TYPES:
            return _stored_kernel(x.dtype)(x, gamma, beta, mean, variance, self.epsilon)
        return (x - mean) * (gamma * tf.math.rsqrt(variance + self.epsilon)) + beta

    def _batch(self, x: tf.Tensor) -> tf.Tensor:
        gamma, beta, *_ = self._parameters(x)
        fused = x.dtype in _FUSED_TYPES and not self.synchronized
        normalize = self._fused if fused else self._composed
        y, mean, unbiased = normalize(x, gamma, beta)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, unbiased)
        return y

    def _fused(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """One kernel; its running variance comes out unbiased."""
        empty = tf.constant([], gamma.dtype)
        result = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=self.epsilon, is_training=True
        )
        return result.y, result.batch_mean, result.batch_variance

    def _composed(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The formula itself: for float64, which the kernel does not take, and across replicas."""
        x = tf.cast(x, gamma.dtype)
        mean = self._across_replicas(tf.reduce_mean(x, axis=[0, 1, 2]))
        variance = self._across_replicas(tf.reduce_mean(tf.square(x - mean), axis=[0, 1, 2]))
        count = tf.cast(self._replicas() * tf.size(x, tf.int64) // tf.size(gamma, tf.int64), x.dtype)
        y = (x - mean) * (gamma * tf.math.rsqrt(variance + self.epsilon)) + beta
        return tf.cast(y, self.compute_dtype), mean, variance * count / tf.maximum(count - 1, 1)

    def _across_replicas(self, value: tf.Tensor) -> tf.Tensor:
        if self._replicas() == 1:
            return value
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)

    def _replicas(self) -> int:
        context = tf.distribute.get_replica_context()
        return context.num_replicas_in_sync if self.synchronized and context else 1

    def _parameters(self, x: tf.Tensor) -> list[tf.Tensor]:
        """In float32 at least, whatever the type of x."""
        dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
        return [tf.cast(v, dtype) for v in (self.gamma, self.beta, self.moving_mean, self.moving_variance)]

    def _move(self, running: keras.Variable, batch: tf.Tensor) -> None:
        new = tf.stop_gradient(tf.cast(batch, running.dtype))
        running.assign(running * self.momentum + new * (1 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        """What __init__ takes."""
        settings = {"momentum": self.momentum, "epsilon": self.epsilon, "synchronized": self.synchronized}
        return {**super().get_config(), **settings}


def _kernel(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Stored statistics in one kernel; the formula takes twice as long on a CPU."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    ).y


def _stored_kernel(dtype: tf.DType) -> Callable[..., tf.Tensor]:
    """In 16 bits on a CPU the kernel's own gradient is the faster one; on a GPU it refuses to be deterministic."""
    own = dtype == tf.float32 or tf.config.list_physical_devices("GPU")
    return _fused_stored if own else _kernel


def _fused_stored(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """The kernel with a gradient of its own: an attack wants that of x alone, and the kernel's computes all three."""

    @tf.custom_gradient
    def apply(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            inverse, wide = tf.math.rsqrt(variance + epsilon), tf.cast(dy, gamma.dtype)
            return (
                dy * tf.cast(gamma * inverse, dy.dtype),
                tf.reduce_sum(wide * (tf.cast(x, gamma.dtype) - mean) * inverse, [0, 1, 2]),
                tf.reduce_sum(wide, [0, 1, 2]),
            )

        return _kernel(x, gamma, beta, mean, variance, epsilon), gradient

    return apply(x, gamma, beta)


_FUSED_TYPES = (tf.float32, tf.bfloat16, tf.float16)


def normalized_images(
    shape: Sequence[int], mean: Sequence[float] | None, std: Sequence[float] | None, *, normalize: bool
) -> tuple[Any, Any]:
    """The input of a network for images of a shape (H, W, C), and that input normalised."""
    dtype = at_least_float32()
    inputs = keras.Input(tuple(shape), name="images", dtype=dtype)
    statistics = (mean, std) if normalize else (None, None)
    return inputs, Normalize(*statistics, name="normalize", dtype=dtype)(inputs)


def bn_activation(x: Any, activation: str = "relu", *, synchronized: bool, name: str) -> Any:
    """BatchNorm, then one of ACTIVATIONS."""
    x = BatchNorm(synchronized=synchronized, name=name)(x)
    if activation == "relu":  # a layer of its own kind, as in the files of earlier versions
        return keras.layers.ReLU(name=f"{name}.relu")(x)
    return keras.layers.Activation(activation, name=f"{name}.{activation}")(x)


def torch_init() -> keras.initializers.Initializer:
    """PyTorch's default for dense and convolutional kernels: U(+-1/sqrt(fan-in))."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def at_least_float32() -> str:
    """The type of what must not be rounded to 16 bits: pixels and logits."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _floats(name: str, values: Sequence[float] | float | None) -> list[float] | None:
    if values is None:
        return None
    try:
        return [float(v) for v in (values if isinstance(values, Sequence) else [values])]
    except (TypeError, ValueError):
        raise UserError(f"{name}: expected a number for each channel, received {values!r}.") from None
