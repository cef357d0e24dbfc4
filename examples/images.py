"""Images without attacks: is training at perturbed weights worth it for a small convolutional network?

    python examples/images.py [--seeds=5] [--epochs=30]

prints a table for scikit-learn's 8x8 handwritten digits, 300 of them to train on: test accuracy of plain training,
random perturbations, AWP, SAM and ASAM, and the differences to plain training with as many gradients and
with as many epochs.
"""

import keras
from keras import layers
from sklearn import datasets

import compare


def digits(seed: int) -> compare.Data:
    """300 images to train on, 500 to choose on, 997 to test on, with pixels in 0..1."""
    x, y = datasets.load_digits(return_X_y=True)
    return compare.split((x / 16).astype("float32").reshape(-1, 8, 8, 1), y, (300, 500), seed)


def convolutional() -> keras.Model:
    """Two convolutions with BatchNormalization, whose moving averages have to settle within few steps."""
    return keras.Sequential(
        [
            keras.Input([8, 8, 1]),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


TASK = compare.Task(
    title="Digits, 300 training images",
    data=digits,
    network=convolutional,
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    epochs=30,
    batch_size=50,
    rate=1e-2,
)

if __name__ == "__main__":
    compare.main(__doc__, [TASK], compare.methods(), seeds=5)
