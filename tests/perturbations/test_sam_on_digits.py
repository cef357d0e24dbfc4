"""SAM alone makes a network more robust (Wei et al., arXiv 2305.05392), on real digits, over paired seeds."""

import keras
import numpy as np
import pytest

from awp_tf.attacks import PGD, Clean
from awp_tf.data import Batches, Split, digits, ordered
from awp_tf.evaluation.accuracy import Evaluator
from awp_tf.methods import Standard
from awp_tf.networks.layers import BatchNorm
from awp_tf.optimizers import SGD
from awp_tf.perturbations import SAM, Identity
from awp_tf.schedules import LearningRate, Piecewise
from awp_tf.threats import Linf
from awp_tf.trainer import RobustTrainer

EPOCHS = 30


def network():
    """Three convolutions with BatchNorm, global average pooling."""
    x = inputs = keras.Input((8, 8, 1))
    for filters, stride in ((16, 1), (32, 2), (32, 1)):
        x = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(BatchNorm()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def accuracies(perturbation, seed):
    """(Clean, robust) on 797 test images after training on 1,000."""
    source = digits()
    images = np.concatenate([source.train.images, source.test.images])
    everything = Split(images, np.concatenate([source.train.labels, source.test.labels]))
    train, test = everything.take(slice(1000)), everything.take(slice(1000, None))
    keras.utils.set_random_seed(seed)
    batches = Batches(train, 64, seed=seed)
    per_epoch = batches.steps_per_epoch
    settings = {"method": Standard(), "attack": Clean(), "weight_decay": 5e-4, "seed": seed}
    trainer = RobustTrainer(network(), perturbation=perturbation, steps_per_epoch=per_epoch, **settings)
    rate = Piecewise(0.1, EPOCHS, drops=(0.75, 0.9))
    trainer.compile(SGD(LearningRate(rate, per_epoch)))
    trainer.fit(batches.dataset(0, EPOCHS * per_epoch), shuffle=False, verbose=0)
    evaluator = Evaluator(trainer.network, {"robust": PGD(Linf(0.1), steps=10)})
    found = evaluator(ordered(test, 200))
    return found["clean"], found["robust"]


@pytest.mark.slow
def test_sam_gains_five_points_of_robustness_at_no_cost_in_clean_accuracy():
    found = {rho: [] for rho in (0.0, 0.2)}
    for seed in range(3):
        for rho, values in found.items():
            values.append(accuracies(SAM(rho) if rho else Identity(), seed))
    plain, sam = (np.array(values) for values in found.values())
    print("\nSGD", plain.round(4).tolist(), "\nSAM", sam.round(4).tolist())
    gain = (sam - plain).mean(axis=0)
    assert gain[1] >= 0.05
    assert gain[0] >= -0.005
