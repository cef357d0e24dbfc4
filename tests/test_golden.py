"""The golden sequence: two AT-AWP steps of the official PyTorch code in double precision.

Weights, images and probes are drawn by NumPy alone, so the numbers can be redone without torch.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import Clean
from awp_tf.functional import predictor, read
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT
from awp_tf.networks import dump_torch_weights, load_torch_weights, preact_resnet18
from awp_tf.optimizers import SGD
from awp_tf.perturbations import AWP, Perturbation
from awp_tf.trainer import RobustTrainer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
BLOCK = ("bn1.weight", "bn1.bias", "conv1.weight", "bn2.weight", "bn2.bias", "conv2.weight")


def parameter_names():
    """named_parameters() of the reference's PreActResNet18, in its order."""
    blocks = []
    for stage in range(1, 5):
        for index in range(2):
            blocks += [f"layer{stage}.{index}.{part}" for part in BLOCK]
            blocks += [f"layer{stage}.{index}.shortcut.0.weight"] if stage > 1 and index == 0 else []
    return ["conv1.weight", *blocks, "bn.weight", "bn.bias", "linear.weight", "linear.bias"]


def drawn(t, name, shape):
    z = np.random.RandomState(1000 + t).standard_normal(shape)
    if len(shape) > 1:
        return (z * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    return (0.1 * z if name.endswith("bias") else 1 + 0.1 * z).astype(np.float32)


def probe(name, array):
    t = parameter_names().index(name)
    return np.sum(array * np.random.RandomState(2000 + t).standard_normal(array.shape))


@dataclasses.dataclass
class Watching(Perturbation):
    """A perturbation that remembers what another one returned."""

    inner: AWP
    seen: list = dataclasses.field(default_factory=list)

    def __call__(self, weights, gradient, seed, start=None):
        (nearby,) = points = self.inner(weights, gradient, seed, start)
        self.seen.append([(n - w).numpy() for w, n in zip(weights, nearby, strict=True)])
        return points


@pytest.fixture(scope="module")
def run():
    """Everything the golden sequence is compared on."""
    import keras

    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    network = preact_resnet18(mean=MEAN, std=STD)
    state = dump_torch_weights(network)
    names = parameter_names()
    assert sorted(names) == sorted(n for n in state if "running" not in n)
    state.update({name: drawn(t, name, state[name].shape) for t, name in enumerate(names)})
    load_torch_weights(network, state)

    x = np.random.RandomState(7).uniform(0, 1, (8, 3, 32, 32))
    noise = np.random.RandomState(8).uniform(-8 / 255, 8 / 255, x.shape)
    x, x_adv = (tf.constant(a.transpose(0, 2, 3, 1)) for a in (x, np.clip(x + noise, 0, 1)))
    y = tf.constant(np.arange(8) % 10)
    mean_loss = lambda logits: float(tf.reduce_mean(cross_entropy(logits, y)))  # noqa: E731

    out = {"logits": predictor(network)(x).numpy(), "perturbed": [], "clean": [], "w": [], "v": []}
    watching = Watching(AWP(0.01))
    trainer = RobustTrainer(network, method=AT(), attack=Clean(), perturbation=watching, weight_decay=5e-4)
    trainer.compile(SGD(0.1))
    weights, stats = read(network.trainable_variables), read(network.non_trainable_variables)
    out["unperturbed"] = mean_loss(network.stateless_call(weights, stats, x_adv, training=True)[0])
    for _ in range(2):
        out["perturbed"].append(float(trainer.train_step((x_adv, y))["loss"]))
        out["clean"].append(mean_loss(network(x, training=True)))  # the reference logs this pass, which moves BN
        out["w"].append(dump_torch_weights(network))
        out["v"].append(_by_torch_name(network, watching.seen[-1]))
    out["final"] = mean_loss(predictor(network)(x_adv))
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    return out


def _by_torch_name(network, values):
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    paths = [v.path.split("/") for v in network.trainable_variables]
    suffix = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    named = {f"{layer}.{suffix[kind]}": v for (layer, kind), v in zip(paths, values, strict=True)}
    return {name: v.transpose(axes[v.ndim]) / 0.01 for name, v in named.items()}


RTOL = 1e-6


def test_logits_equal_the_reference(run):
    np.testing.assert_allclose(run["logits"][0, :3], [41.886253, -15.437160, 11.539383], rtol=RTOL)
    np.testing.assert_allclose(run["logits"].sum(), 476.784309, rtol=RTOL)


def test_losses_equal_the_reference(run):
    np.testing.assert_allclose(run["unperturbed"], 2.3887352, rtol=RTOL)
    np.testing.assert_allclose(run["perturbed"], [6.9657416, 4.0240218], rtol=RTOL)
    np.testing.assert_allclose(run["clean"], [0.8358899, 0.3333689], rtol=RTOL)
    np.testing.assert_allclose(run["final"], 8.0576796, rtol=RTOL)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.weight", -12.210343),
        ("layer2.0.shortcut.0.weight", 6.343990),
        ("layer4.1.conv2.weight", 22.993308),
        ("linear.weight", 0.232255),
    ],
)
def test_weight_perturbations_equal_the_reference(run, name, expected):
    np.testing.assert_allclose(probe(name, run["v"][0][name]), expected, rtol=RTOL, atol=5e-7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.weight", -9.645368),
        ("layer4.1.conv2.weight", 0.365864),
        ("linear.weight", -9.798126),
        ("linear.bias", 0.199227),
        ("layer1.0.bn1.weight", -3.704127),
    ],
)
def test_weights_after_a_step_equal_the_reference(run, name, expected):
    np.testing.assert_allclose(probe(name, run["w"][0][name]), expected, rtol=RTOL, atol=5e-7)


def test_running_statistics_equal_the_reference(run):
    last = run["w"][1]
    sums = [last[f"{bn}.running_{kind}"].sum() for kind in ("mean", "var") for bn in ("layer1.0.bn1", "bn")]
    np.testing.assert_allclose(sums, [0.251693, -18.580984, 100.736959, 753.413359], rtol=RTOL, atol=5e-7)
