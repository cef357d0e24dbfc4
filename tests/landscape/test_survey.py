"""Settings, the survey of one network, and going on with it."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_network, tiny_split

from awp_tf.attacks import PGD
from awp_tf.data import ordered
from awp_tf.evaluation.passes import Passes, random_direction, shift
from awp_tf.infra.devices import Devices
from awp_tf.infra.errors import UserError
from awp_tf.landscape.settings import Landscape
from awp_tf.landscape.survey import Survey, cost
from awp_tf.noise import WEIGHTS, make_seed
from awp_tf.threats import Linf

ATTACK = PGD(Linf(0.1), steps=2)
SETTINGS = Landscape(ATTACK, alphas="-1:1:3", directions=2, fixed=True, plane="-1:1:3", batch_size=16)
OWN, OTHER = (list(ordered(tiny_split(count, seed), 16, "float32")) for count, seed in ((40, 0), (20, 7)))


class Stop(Exception):  # noqa: N818
    """What an interruption raises."""


def survey(file, settings=SETTINGS, on_passes=lambda passes: None, threads=1, devices=Devices()):
    passes = Passes(tiny_network(), settings.attack, seed=settings.seed)
    return Survey(passes, OWN, OTHER, settings, file, on_passes, threads, devices)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return survey(tmp_path_factory.mktemp("survey") / "a.npz").run()


def test_curves_hold_alphas_and_the_places_where_sharpness_is_read():
    alphas = Landscape(ATTACK, alphas="-1:1:21").curves[0].coefficients[:, 0]
    assert len(alphas) == 23
    assert {-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0} <= set(alphas)
    assert list(Landscape(ATTACK, alphas=[0, 0.1]).curves[0].coefficients[:, 0]) == [0, 0.1]
    names = [curve.name for curve in SETTINGS.curves]
    assert names == ["random 1", "random 2", "awp", "random 1, fixed images", "random 2, fixed images", "plane"]
    awp = SETTINGS.curves[2].coefficients[:, 0]
    assert (awp.min(), awp.max()) == (-0.05, 0.05)
    assert SETTINGS.curves[-1].coefficients.shape == (9, 2)


@pytest.mark.parametrize("alphas", ["-1:1:20", "0.5:1:3", "1:2", "x:1:3", "-1:1:-1", [0.5, 1], [], "nan:1:3"])
def test_alphas_without_zero_are_refused(alphas):
    with pytest.raises(UserError, match="alphas: expected"):
        Landscape(ATTACK, alphas=alphas)


@pytest.mark.parametrize(
    "settings",
    [
        {"directions": 0},
        {"awp_length": -1},
        {"split": "all"},
        {"batch_size": 0},
        {"examples": 0},
        {"plane": "1:2:3"},
        {"plane": "0:0:1"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))}: expected"):
        Landscape(ATTACK, **settings)


def test_every_point_is_visited_and_all_curves_meet_at_the_weights(whole):
    for curve in SETTINGS.curves:
        heights = whole[curve.name]
        assert np.isfinite(heights).all()
        np.testing.assert_array_equal(heights[~curve.coefficients.any(axis=1)], whole["start"])
    middle = whole["plane"].reshape(3, 3, 2)[:, 1]  # beta = 0: the first direction
    places = np.isin(SETTINGS.curves[0].coefficients[:, 0], [-1, 0, 1])
    np.testing.assert_allclose(middle, whole["random 1"][places], rtol=1e-6)


def test_random_directions_are_different_ones_and_fixed_images_are_those_of_the_weights(whole):
    assert not np.allclose(whole["random 1"], whole["random 2"])
    passes = Passes(tiny_network(), ATTACK, seed=SETTINGS.seed)
    direction = random_direction(passes.weights, make_seed(SETTINGS.seed, WEIGHTS, 1))
    there = shift(passes.weights, [direction], [1.0])
    (place,) = np.flatnonzero(SETTINGS.curves[3].coefficients[:, 0] == 1)
    expected = passes.without_attack().height(there, passes.craft(OWN))
    np.testing.assert_allclose(whole["random 1, fixed images"][place], expected, rtol=1e-6)
    assert expected.loss != passes.height(there, OWN).loss


def test_along_its_own_direction_the_loss_rises_faster_than_along_a_random_one(tmp_path):
    settings = Landscape(ATTACK, alphas=[-0.05, 0, 0.05], directions=1, awp_length=1.0, batch_size=16)
    found = survey(tmp_path / "a.npz", settings).run()
    assert found["awp"][-1, 0] > found["random 1"][-1, 0]
    assert found["awp"][-1, 0] > found["start"][0, 0] > found["awp"][0, 0]


@pytest.mark.parametrize("stop", [1, 40, 80])
def test_an_interrupted_survey_goes_on_and_ends_with_the_same_numbers(stop, tmp_path, whole):
    made = []

    def on_passes(passes):
        made.append(passes)
        if len(made) == stop:
            raise Stop

    with pytest.raises(Stop):
        survey(tmp_path / "a.npz", on_passes=on_passes).run()
    before = survey(tmp_path / "a.npz").done()
    again = []
    found = survey(tmp_path / "a.npz", on_passes=again.append).run()
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])
    # What had been saved is not made again, but for the directions that need a pass over the images.
    assert before <= sum(made)
    assert before > 0 or stop == 1
    assert cost(SETTINGS, len(OWN), len(OTHER)) - sum(made) <= sum(again)
    assert sum(again) <= cost(SETTINGS, len(OWN), len(OTHER)) - before


def test_points_side_by_side_give_the_same_numbers(tmp_path, whole):
    found = survey(tmp_path / "a.npz", threads=3).run()
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])


def test_two_devices_visit_points_and_the_numbers_are_those_of_one(tmp_path, whole, monkeypatch):
    used, height = set(), Passes.height

    def spy(self, weights, *given):
        losses, _ = self._measure(list(weights), self._state, *OWN[0], tf.range(len(OWN[0][1]), dtype=tf.int64))
        used.add((weights[0].device, losses.device))
        return height(self, weights, *given)

    monkeypatch.setattr(Passes, "height", spy)
    found = survey(tmp_path / "a.npz", threads=4, devices=Devices(("CPU:0", "CPU:1"))).run()
    assert len(used) == 2
    assert all(weights == losses for weights, losses in used)
    for name in whole:
        np.testing.assert_array_equal(found[name], whole[name])


def test_the_cost_is_what_is_made(tmp_path):
    made = []
    survey(tmp_path / "a.npz", on_passes=made.append).run()
    assert survey(tmp_path / "a.npz").done() == sum(made) == cost(SETTINGS, len(OWN), len(OTHER))


def test_a_damaged_state_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"half")
    with pytest.raises(UserError, match="expected the state of a landscape"):
        survey(tmp_path / "a.npz").run()
