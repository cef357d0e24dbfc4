import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from awp_tf.attacks import PGD
from awp_tf.infra.errors import UserError
from awp_tf.perturbations import AWP
from awp_tf.schedules import Constant, Cosine, Cyclic, Interpolated, LearningRate, Linear, Piecewise, Warmup, at_epoch
from awp_tf.threats import Linf


def at(schedule, epochs):
    return np.array([float(schedule(tf.constant(e, tf.float64))) for e in epochs])


EPOCHS = np.linspace(0, 200, 41)


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Constant(0.1), lambda t: 0.1),
        (Piecewise(0.1, 200), lambda t: 0.1 if t / 200 < 0.5 else 0.01 if t / 200 < 0.75 else 0.001),
        (Cosine(0.1, 200), lambda t: 0.1 * 0.5 * (1 + np.cos(t / 200 * np.pi))),
        (Cyclic(0.1, 200), lambda t: np.interp(t, [0, 80, 200], [0, 0.1, 0])),
        (Linear(0.1, 200), lambda t: np.interp(t, [0, 200 // 3, 400 // 3, 200], [0.1, 0.1, 0.01, 0.001])),
        (Warmup(0.005, 9), lambda t: 0.005 if t >= 9 else 0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_curves_are_those_of_the_reference(schedule, reference):
    np.testing.assert_allclose(at(schedule, EPOCHS), [reference(t) for t in EPOCHS], rtol=1e-12)


def rate(steps_per_epoch, whole_epochs):
    schedule = LearningRate(Piecewise(0.1, 200), steps_per_epoch, whole_epochs)
    return lambda step: round(float(schedule(tf.constant(step))), 6)


def test_at_drops_one_step_before_epochs_100_and_150():
    of = rate(391, whole_epochs=False)
    assert [of(s) for s in (39098, 39099, 58648, 58649)] == [0.1, 0.01, 0.01, 0.001]


def test_trades_drops_at_the_start_of_epochs_100_and_150_counted_from_1():
    of = rate(391, whole_epochs=True)
    first = 99 * 391, 149 * 391
    assert [of(s) for s in (first[0] - 1, first[0], first[1] - 1, first[1])] == [0.1, 0.01, 0.01, 0.001]


def test_scheduled_fields_are_set_at_any_depth():
    attack = PGD(Linf(Warmup(0.1, 2)), steps=3)
    now = at_epoch(attack, tf.constant(5.0, tf.float64))
    assert float(now.threat.epsilon) == pytest.approx(0.1)
    assert dataclasses.replace(now, threat=attack.threat) == attack
    assert float(at_epoch(AWP(Warmup(0.005, 9)), tf.constant(8.99, tf.float64)).gamma) == 0


def test_what_is_not_scheduled_is_returned_as_it_is():
    attack = PGD(Linf(8 / 255))
    assert at_epoch(attack, tf.constant(1.0, tf.float64)) is attack


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Piecewise(-0.1, 10), r"Piecewise\.initial: expected a number > 0"),
        (lambda: Cosine(0.1, 0), r"Cosine\.epochs: expected a number > 0"),
        (lambda: Warmup(0.1, -1), r"Warmup\.epochs: expected a number >= 0"),
        (
            lambda: Interpolated(0.1, 10, points=(0, 1, 2)),
            "Interpolated: expected increasing points",
        ),
        (lambda: Linear(0.1, 2), r"Linear\.epochs: expected a whole number >= 3"),
        (lambda: LearningRate(Constant(0.1), 0), r"LearningRate\.steps_per_epoch: expected a whole number >= 1"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_schedules_are_found_in_tuples_and_lists_at_any_depth():
    @dataclasses.dataclass(frozen=True)
    class Several:
        parts: tuple
        others: list

    warming = PGD(Linf(Warmup(0.1, 2)))
    several = Several((AWP(0.1), (warming,)), [warming, 3])
    now = at_epoch(several, tf.constant(3, tf.float64))
    assert [float(pgd.threat.epsilon) for pgd in (now.parts[1][0], now.others[0])] == pytest.approx([0.1, 0.1])
    assert now.parts[0] is several.parts[0]
    assert now.others[1] == 3
    still = Several((AWP(0.1),), [1])
    assert at_epoch(still, tf.constant(3, tf.float64)) is still


def test_a_rate_without_drops_is_constant_and_a_drop_wants_brackets():
    np.testing.assert_allclose(at(Piecewise(0.1, 200, drops=()), EPOCHS), 0.1)
    with pytest.raises(UserError, match=r"Piecewise\.drops: expected"):
        Piecewise(0.1, 200, drops=0.5)
