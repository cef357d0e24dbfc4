import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same_weights, tiny_batch, tiny_network, tiny_split, tiny_trainer, weights_of

from awp_tf.attacks import PGD, Clean, GaussianStart, ZeroStart
from awp_tf.averaging import EMA
from awp_tf.data import Batches
from awp_tf.infra.errors import UserError
from awp_tf.losses import cross_entropy
from awp_tf.methods import AT, MART, TRADES, Standard
from awp_tf.networks import preact_resnet18
from awp_tf.networks.layers import BatchNorm
from awp_tf.optimizers import SGD
from awp_tf.perturbations import AWP, Identity, RandomPerturbation
from awp_tf.schedules import Warmup
from awp_tf.threats import L2, Linf

METHODS = {
    "standard": {"method": Standard(), "attack": Clean()},
    "at": {"method": AT(), "attack": PGD(Linf(0.1), steps=2)},
    "at_l2": {"method": AT(attack_in_training_mode=False), "attack": PGD(L2(0.5), steps=2)},
    "trades": {"method": TRADES(), "attack": PGD(Linf(0.1), steps=2, start=GaussianStart())},
    "mart": {"method": MART(), "attack": PGD(Linf(0.1), steps=2, start=GaussianStart())},
}
PERTURBATIONS = {"none": Identity(), "awp": AWP(0.02), "awp2": AWP(0.02, steps=2), "rwp": RandomPerturbation(0.02)}


def resnet():
    keras.utils.set_random_seed(0)
    return preact_resnet18(width=2, shape=(8, 8, 1), classes=4)


def bn_network(synchronized=False):
    """One convolution and one BatchNorm: quick to trace, also for two replicas."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="conv1")(inputs)
    x = keras.layers.ReLU()(BatchNorm(synchronized=synchronized, name="bn1")(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="linear")(keras.layers.Flatten()(x)))


def steps(trainer, batches):
    step = tf.function(trainer.train_step, autograph=False)
    return [{k: float(v) for k, v in step(batch).items()} for batch in batches]


def batches(count=3, dtype="float32"):
    return [tiny_batch(8, dtype, seed) for seed in range(count)]


# Every method with AWP, every perturbation with TRADES: neither knows the other.
COMBINATIONS = [*((name, "awp") for name in METHODS), *(("trades", name) for name in PERTURBATIONS if name != "awp")]


OFTEN = {("at", "awp"), ("mart", "awp"), ("trades", "awp2"), ("trades", "rwp")}  # the others are slow


@pytest.mark.parametrize(
    ("method", "perturbation"),
    [pair if pair in OFTEN else pytest.param(*pair, marks=pytest.mark.slow) for pair in COMBINATIONS],
)
def test_every_method_and_every_perturbation_trains(method, perturbation):
    trainer = tiny_trainer(perturbation=PERTURBATIONS[perturbation], rate=0.05, **METHODS[method])
    losses = [logs["loss"] for logs in steps(trainer, [tiny_batch(16)] * 12)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < losses[0]


@pytest.mark.parametrize("method", [METHODS["standard"], METHODS["trades"]], ids=["standard", "trades"])
def test_gamma_zero_is_plain_training_bit_for_bit(method):
    trained = []
    for perturbation in (Identity(), AWP(0.0)):
        trainer = tiny_trainer(bn_network(), perturbation=perturbation, **method)
        steps(trainer, batches())
        trained.append(trainer.network)
    assert_same_weights(*trained)


def in_place_step(network, x_adv, y, velocities, *, gamma, rate, weight_decay):
    """The reference's step as it is written: change the variables, descend, change them back."""
    variables, statistics = network.trainable_variables, network.non_trainable_variables
    saved = [v.numpy() for v in statistics]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(cross_entropy(network(x_adv, training=True), y))
    gradients = tape.gradient(loss, [v.value for v in variables])
    for variable, value in zip(statistics, saved, strict=True):
        variable.assign(value)
    diffs = [
        gamma * tf.norm(v) * g / tf.norm(g) if len(v.shape) > 1 else tf.zeros_like(g)
        for v, g in zip(variables, gradients, strict=True)
    ]
    for variable, diff in zip(variables, diffs, strict=True):
        variable.assign_add(diff)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(cross_entropy(network(x_adv, training=True), y))
    gradients = tape.gradient(loss, [v.value for v in variables])
    for i, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
        velocities[i] = 0.9 * velocities[i] + gradient + weight_decay * variable.value
        variable.assign_sub(rate * velocities[i])
        variable.assign_sub(diffs[i])
    return float(loss)


@pytest.mark.usefixtures("float64")
def test_equals_the_reference_that_perturbs_in_place():
    ours, theirs = resnet(), resnet()
    trainer = tiny_trainer(ours, method=AT(), attack=Clean(), perturbation=AWP(0.02))
    velocities = [tf.zeros_like(v.value) for v in theirs.trainable_variables]
    for x, y in batches(3, "float64"):
        loss = float(trainer.train_step((x, y))["loss"])
        expected = in_place_step(theirs, x, y, velocities, gamma=0.02, rate=0.1, weight_decay=5e-4)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert_same_weights(ours, theirs, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_weight_decay_is_taken_at_the_perturbed_weights():
    moved = []
    for weight_decay in (0.0, 0.5):
        network = tiny_network()
        start = [v.numpy() for v in network.trainable_variables]
        seen = []

        class Watching(AWP):
            def __call__(self, *arguments):
                seen.append(super().__call__(*arguments))  # noqa: B023
                return seen[-1]  # noqa: B023

        trainer = tiny_trainer(network, perturbation=Watching(0.1), weight_decay=weight_decay)
        trainer.train_step(tiny_batch(8, "float64"))
        moved.append([v.numpy() - s for v, s in zip(network.trainable_variables, start, strict=True)])
    for without, with_decay, nearby in zip(*moved, seen[0][0], strict=True):
        np.testing.assert_allclose(with_decay - without, -0.1 * 0.5 * nearby, atol=1e-12)


def test_ascent_leaves_the_running_statistics_to_the_outer_pass():
    plain, perturbed = bn_network(), bn_network()
    counted = []
    for network, perturbation in ((plain, Identity()), (perturbed, AWP(1e-9, steps=3))):
        tiny_trainer(network, method=AT(), perturbation=perturbation).train_step(tiny_batch(8))
        counted.append([v.numpy() for v in network.non_trainable_variables])
    for one, other in zip(*counted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("method", "updates"), [("at", 1), ("trades", 2), ("mart", 2)])
def test_statistics_move_once_per_outer_forward_pass_and_never_in_the_attack(method, updates):
    network, (x, y) = bn_network(), tiny_batch(8, "float64")
    before = keras.Model(network.input, network.get_layer("conv1").output)(x).numpy()
    unbiased = before.var((0, 1, 2), ddof=1)
    settings = {**METHODS[method], "attack": PGD(Linf(1e-9), steps=3)}  # so that every pass sees x
    tiny_trainer(network, perturbation=AWP(0.0), **settings).train_step((x, y))
    kept = 0.9**updates
    expected = kept + (1 - kept) * unbiased
    np.testing.assert_allclose(network.get_layer("bn1").moving_variance, expected, rtol=1e-6)


def test_logs_the_loss_first_and_the_size_of_the_perturbation_per_group():
    logs = tiny_trainer(resnet(), perturbation=AWP(0.02)).train_step(tiny_batch(8))
    assert list(logs) == [
        "loss",
        *(f"v_over_w/{g}" for g in ("conv1", "layer1", "layer2", "layer3", "layer4", "linear")),
    ]
    for name in list(logs)[1:]:
        assert float(logs[name]) == pytest.approx(0.02, rel=1e-3)


def test_warm_up_switches_the_perturbation_on_after_its_epochs():
    trainer = tiny_trainer(perturbation=AWP(Warmup(0.02, epochs=2)), steps_per_epoch=2)
    sizes = [logs["v_over_w/conv1"] for logs in steps(trainer, batches(6))]
    np.testing.assert_allclose(sizes, [0, 0, 0, 0, 0.02, 0.02], rtol=1e-3)


def test_what_is_saved_is_the_average(tmp_path):
    trainer = tiny_trainer(averaging=lambda network: EMA(network, 0.5))
    steps(trainer, batches(3))
    trainer.save(tmp_path / "it.keras")
    assert_same_weights(keras.models.load_model(tmp_path / "it.keras"), trainer.averaged.network)
    assert np.abs(weights_of(trainer.averaged.network)[0] - weights_of(trainer.network)[0]).max() > 0


def test_alternations_let_the_attack_see_the_perturbed_weights():
    trained = {}
    for turns in (1, 2):
        settings = {"attack": PGD(Linf(0.1), steps=2, start=ZeroStart()), "method": AT(), "perturbation": AWP(0.05)}
        trainer = tiny_trainer(alternations=turns, **settings)
        trained[turns] = steps(trainer, batches(1))[0]
    assert trained[2]["loss"] > trained[1]["loss"]
    assert trained[2]["v_over_w/conv1"] == pytest.approx(0.05, rel=1e-3)


@pytest.mark.usefixtures("float64")
def test_alternations_follow_the_algorithm_of_the_paper():
    attack, awp, method = PGD(Linf(0.1), steps=2, start=ZeroStart()), AWP(0.05), AT(attack_in_training_mode=False)
    network, (x, y) = tiny_network(), tiny_batch(8, "float64")
    w = [tf.convert_to_tensor(v.value) for v in network.trainable_variables]
    loss = lambda at, z: tf.reduce_mean(cross_entropy(network.stateless_call(at, [], z)[0], y))  # noqa: E731
    x_adv, v = x, [tf.zeros_like(t) for t in w]
    for _ in range(3):
        nearby = [a + b for a, b in zip(w, v, strict=True)]
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(x_adv)
                value = loss(nearby, x_adv)
            x_adv = tf.clip_by_value(x_adv + 0.025 * tf.sign(tape.gradient(value, x_adv)), x - 0.1, x + 0.1)
            x_adv = tf.clip_by_value(x_adv, 0, 1)
        with tf.GradientTape() as tape:
            tape.watch(nearby)
            value = loss(nearby, x_adv)
        for i, g in enumerate(tape.gradient(value, nearby)):
            if w[i].shape.rank > 1:
                moved = v[i] + 0.05 * tf.norm(w[i]) * g / tf.norm(g)
                v[i] = moved * tf.minimum(1.0, 0.05 * tf.norm(w[i]) / tf.norm(moved))
    expected = float(loss([a + b for a, b in zip(w, v, strict=True)], x_adv))
    trainer = tiny_trainer(network, method=method, attack=attack, perturbation=awp, alternations=3)
    assert float(trainer.train_step((x, y))["loss"]) == pytest.approx(expected, rel=1e-10)


def test_xla_computes_the_fused_batchnorm_of_float32_alike():
    trained = []
    for xla in (False, True):
        trainer = tiny_trainer(bn_network(), xla=xla, rate=0.01, **METHODS["at_l2"])
        steps(trainer, batches(2))
        trained.append(trainer.network)
    assert_same_weights(*trained, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": AT(), "attack": PGD(Linf(0.1), steps=1, relative_step_size=1e-6), "perturbation": Identity()},
        {"method": Standard(), "attack": Clean(), "perturbation": RandomPerturbation(0.1)},
    ],
    ids=["attack", "rwp"],
)
def test_noise_is_fresh_at_every_step(settings):
    trainer = tiny_trainer(rate=1e-30, **settings)
    first, second = (logs["loss"] for logs in steps(trainer, [tiny_batch(8)] * 2))
    assert abs(first - second) > 1e-5


def of_four(count):
    """Global batches of 12, 12, 4 images in equal shares."""
    return Batches(tiny_split(28), 12, replicas=count, dtype="float64").dataset(0, 4)


def replicated(count, make_network, perturbation, method, data=of_four):
    """A few steps on the same global batches over count logical CPUs."""
    devices = [f"CPU:{i}" for i in range(count)]
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        trainer = tiny_trainer(make_network(), perturbation=perturbation, **method)
        data = strategy.experimental_distribute_dataset(data(count))
        run = lambda batch: strategy.run(trainer.train_step, args=(batch,))  # noqa: E731
        step = tf.function(run, input_signature=[data.element_spec], autograph=False)
        losses = []
        for batch in data:
            logs = strategy.experimental_local_results(step(batch)["loss"])
            assert len({float(value) for value in logs}) == 1
            losses.append(float(logs[0]))
    return losses, trainer


def slow_but(kept, names):
    """Names as parameters, all but a few of the slow suite: two replicas take long to trace."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", slow_but(("trades", "at"), METHODS))
def test_two_replicas_equal_one(method):
    perturbation = "rwp" if method == "at" else "awp"
    runs = [replicated(count, tiny_network, PERTURBATIONS[perturbation], METHODS[method]) for count in (1, 2)]
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-10)
    assert_same_weights(runs[0][1].network, runs[1][1].network, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_two_replicas_equal_one_with_synchronized_batch_norm():
    runs = [replicated(count, lambda: bn_network(synchronized=True), AWP(0.02), METHODS["trades"]) for count in (1, 2)]
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=1e-10)
    assert_same_weights(runs[0][1].network, runs[1][1].network, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_replicas_with_statistics_of_their_own_agree_after_every_step():
    _, trainer = replicated(2, bn_network, AWP(0.02), METHODS["at"])
    for variable in trainer.network.weights:
        one, other = (np.asarray(v) for v in variable.value.values)
        np.testing.assert_array_equal(one, other)


def test_fit_of_plain_keras_trains_and_evaluates():
    split = tiny_split(64)
    trainer = tiny_trainer(method=AT(), rate=0.05)
    history = trainer.fit(Batches(split, 16).dataset(0, 40), verbose=0, shuffle=False).history
    assert np.isfinite(history["loss"]).all()
    found = trainer.evaluate(Batches(split, 16).dataset(0, 4), verbose=0, return_dict=True)
    assert 0.3 < found["robust_accuracy"] <= found["clean_accuracy"] <= 1
    assert trainer.predict(split.images[:5], verbose=0).shape == (5, 4)


@pytest.mark.parametrize(
    "settings", [{"weight_decay": -1.0}, {"alternations": 0}, {"xla": "maybe"}], ids=lambda value: next(iter(value))
)
def test_senseless_settings_are_refused(settings):
    with pytest.raises(UserError, match=rf"RobustTrainer\.{next(iter(settings))}: expected"):
        tiny_trainer(**settings)


def test_a_mistyped_momentum_is_refused():
    with pytest.raises(UserError, match=r"SGD\.momentum"):
        SGD(0.1, momentum=-0.1)


def test_the_box_of_an_attack_is_that_of_pixels():
    with pytest.raises(UserError, match=r"RobustTrainer.attack: expected the box of pixels, \(0, 1\), received None"):
        tiny_trainer(attack=PGD(Linf(0.1), box=None))
