"""Tables: is training at perturbed weights worth it for a small dense network?

    python examples/tabular.py [--seeds=5] [--epochs=30] [--all]

prints a table for each of two sets (three with --all) that come with scikit-learn: test accuracy (or explained
variance) of plain training, random perturbations, AWP, SAM and ASAM, and the differences to plain training with as many
gradients and with as many epochs.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
from sklearn import datasets

import compare


def standardised(load: Callable, sizes: tuple[int, int], seed: int) -> compare.Data:
    """A bundled set, split by seed; what is known of means and deviations comes from training rows alone."""
    x, y = load(return_X_y=True)
    data = compare.split(x, y, sizes, seed)
    mean, deviation = data.train.x.mean(0), data.train.x.std(0) + 1e-6
    clipped = [np.clip((part.x - mean) / deviation, -10, 10).astype("float32") for part in data]
    return compare.Data(*(compare.Part(x, part.y) for x, part in zip(clipped, data, strict=True)))


def diabetes(seed: int) -> compare.Data:
    """Regression; targets are standardised, too."""
    data = standardised(datasets.load_diabetes, (150, 100), seed)
    mean, deviation = data.train.y.mean(), data.train.y.std()
    targets = [((part.y - mean) / deviation).astype("float32")[:, None] for part in data]
    return compare.Data(*(compare.Part(part.x, y) for part, y in zip(data, targets, strict=True)))


def mlp(features: int, outputs: int) -> keras.Model:
    """Two hidden layers."""
    hidden = [keras.layers.Dense(64, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input([features]), *hidden, keras.layers.Dense(outputs)])


def classification(title: str, load: Callable, features: int, classes: int, sizes: tuple[int, int]) -> compare.Task:
    """A bundled set with classes."""
    return compare.Task(
        title=title,
        data=functools.partial(standardised, load, sizes),
        network=functools.partial(mlp, features, classes),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


TASKS = [
    classification("Breast cancer, 150 training rows", datasets.load_breast_cancer, 30, 2, (150, 100)),
    classification("Wine, 50 training rows", datasets.load_wine, 13, 3, (50, 50)),
    compare.Task(
        title="Diabetes (regression), 150 training rows",
        data=diabetes,
        network=functools.partial(mlp, 10, 1),
        loss=keras.losses.MeanSquaredError(),
        metric="r2_score",
        unit="test variance explained, %",
    ),
]

if __name__ == "__main__":
    compare.main(__doc__, TASKS, compare.methods(), seeds=5, more=[TASKS[1].title])
