"""Keras models of many kinds, small, with data that fit them; nothing of awp_tf."""

import keras
import numpy as np

ROWS = 36


def tables_and_tokens():
    """Two inputs (one of masked tokens), two losses, regularisers, BatchNormalization and Dropout."""
    table, tokens = keras.Input([6], name="table"), keras.Input([5], name="tokens", dtype="int32")
    words = keras.layers.Embedding(20, 4, mask_zero=True, name="words")(tokens)
    words = keras.layers.GlobalAveragePooling1D()(words)
    hidden = keras.layers.Dense(8, kernel_regularizer="l2", name="hidden")(keras.layers.Concatenate()([table, words]))
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.3)(keras.layers.Activation("tanh")(hidden))
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(hidden)
    size = keras.layers.Dense(1, name="size", bias_regularizer="l1")(hidden)
    return keras.Model({"table": table, "tokens": tokens}, {"kind": kind, "size": size})


TWO_LOSSES = {
    "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
    "loss_weights": {"kind": 1.0, "size": 0.3},
    "metrics": {"kind": ["accuracy"], "size": ["mae"]},
}


def recurrent():
    """A Sequential model over masked tokens."""
    return keras.Sequential(
        [
            keras.Input([5], dtype="int32"),
            keras.layers.Embedding(20, 4, mask_zero=True),
            keras.layers.LSTM(4),
            keras.layers.Dense(3),
        ]
    )


class Own(keras.Model):
    """A subclassed model with add_loss, a metric of its own, compute_loss of its own, and nested inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)
        self.size = keras.metrics.Mean("size")

    def call(self, x):
        first, (second, third) = x
        hidden = self.hidden(keras.ops.concatenate([first, second, third["deep"]], axis=-1))
        self.add_loss(0.01 * keras.ops.mean(hidden**2))
        self.size.update_state(keras.ops.mean(hidden))
        return self.out(hidden)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return super().compute_loss(x, y, y_pred, sample_weight) + 0.1 * keras.ops.mean(y_pred**2)


def own():
    model = Own()
    model(keras.tree.map_structure(lambda leaf: leaf[:2], nested()))
    return model


def dense():
    return keras.Sequential(
        [
            keras.Input([6]),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3),
        ]
    )


def cross_entropy():
    """In the precision of the moment."""
    return {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]}


def table(rows=ROWS):
    return np.random.default_rng(0).normal(size=(rows, 6)).astype("float32")


def tokens(rows=ROWS):
    return np.random.default_rng(1).integers(0, 20, (rows, 5))


def classes(rows=ROWS):
    return np.random.default_rng(2).integers(0, 3, rows)


def nested(rows=ROWS):
    x = table(rows)
    return (x[:, :2], [x[:, 2:4], {"deep": x[:, 4:]}])


def both(rows=ROWS):
    return {"table": table(rows), "tokens": tokens(rows)}


def both_targets(rows=ROWS):
    return {"kind": classes(rows), "size": table(rows)[:, :1]}
