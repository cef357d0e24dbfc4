import numpy as np
import pytest
import tensorflow as tf
from golden import SQUARE, THREATS, checksum, examples_of, mlp, seeds_of

from awp_tf.attacks import Square
from awp_tf.attacks.search import run
from awp_tf.attacks.windows import Stripes, Tiles, pattern
from awp_tf.threats import L2, Linf


@pytest.fixture(scope="module")
def network():
    return mlp(6, 10, 16, 10, 2)


class Stream:
    """The official code's uniform numbers, in its order; a batch shares its windows there."""

    def __init__(self):
        self._rng = np.random.default_rng(7)
        self.used = 0

    def __call__(self, *shape):
        self.used += int(np.prod(shape))
        return self._rng.random(shape)


def shared(numbers, active):
    return np.tile(numbers, (len(active), 1)), active


def linf_start(stream, geometry):
    return geometry.stripes(tf.constant(stream(6, 3, 1, 10).transpose(0, 2, 3, 1)))


def l2_start(stream, geometry):
    noise = np.zeros((6, 25, 4))
    for tile in range(25):
        noise[:, tile, 0] = stream(1)
        noise[:, tile, 1:] = stream(6, 3, 1, 1)[:, :, 0, 0]
    return geometry.tiles(tf.constant(noise))


def linf_noise(stream, active):
    return np.tile(np.concatenate([stream(1), stream(1), stream(3, 1, 1)[:, 0, 0]]), (6, 1))


def l2_noise(stream, active):
    noise = np.zeros((6, 8))
    for place in (0, 1, 2, 3, 4):
        noise[:, place] = stream(1)
    noise[active, 5:] = stream(active.sum(), 3, 1, 1)[:, :, 0, 0]
    return noise


PARTS = {"Linf": (Stripes, linf_start, linf_noise), "L2": (Tiles, l2_start, l2_noise)}


@pytest.mark.parametrize("norm", PARTS)
def test_follows_the_official_trace(network, norm):
    golden, (geometry, start, noise) = SQUARE[f"square/{norm}"], PARTS[norm]
    attack, stream = Square(THREATS[norm](golden["eps"]), queries=60), Stream()
    examples = examples_of(network)
    begun = start(stream, geometry(network.x, golden["eps"], 60, 0.8))
    state = attack.begin_at(examples, begun)
    step = tf.function(lambda s, i: attack.step(network, examples, s, i, seeds_of(examples)), autograph=False)
    for i in range(attack.steps):
        active = state.margin.numpy() > 0
        if i and active.any():
            numbers = noise(stream, active)
            state = state._replace(noise=tf.tile(tf.constant(numbers)[:, None], [1, attack.steps, 1]))
        state = step(state, tf.constant(i))
    np.testing.assert_array_equal(state.queries, golden["queries"])
    np.testing.assert_allclose(state.margin, golden["margin"], rtol=1e-9)
    np.testing.assert_allclose(checksum(state.best, network.x), golden["chk"], rtol=1e-9)
    assert stream.used == golden["uniforms"]


@pytest.mark.parametrize("side", [2, 3, 4, 5])
def test_patterns_are_the_official_ones(side):
    np.testing.assert_allclose(pattern(side), SQUARE[f"eta/{side}"], atol=1e-7)


@pytest.mark.parametrize(("geometry", "column"), [(Stripes, 2), (Tiles, 3)])
def test_windows_shrink_as_in_the_official_schedule(geometry, column):
    sides = geometry(tf.zeros([1, 32, 32, 3]), 0.1, 10_000, 0.8)._sides
    for row in SQUARE["p_schedule_32"]:
        assert sides[row[0]] == row[column]
        if row[0]:
            assert sides[row[0] - 1] >= row[column]


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 18, 3), (28, 28, 1), (4, 4, 3), (33, 32, 2)])
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=repr)
def test_every_query_is_in_ball_and_box_on_images_of_any_shape(shape, threat, rng):
    x = tf.constant(rng.random((5, *shape)), tf.float32)
    matrix = tf.constant(rng.normal(size=(int(np.prod(shape)), 3)), tf.float32)
    seen = []

    def predict(z):
        seen.append(z)
        return tf.round(tf.reshape(z, [len(z), -1]) * 16) @ matrix  # no gradient to be had

    y = tf.argmax(predict(x), 1, output_type=tf.int32)
    examples = _examples(x, y)
    attack = Square(threat, queries=30)
    state = attack.begin(examples, seeds_of(examples), tf.constant(0))
    margins = []
    for i in range(attack.steps):
        state = attack.step(predict, examples, state, tf.constant(i), seeds_of(examples))
        margins.append(state.margin.numpy())
    assert len(seen) == attack.steps + 1
    for z in seen:
        assert (threat.norm(z - x).numpy() <= threat.epsilon * (1 + 1e-5)).all()
        assert 0 <= z.numpy().min() <= z.numpy().max() <= 1
    assert (np.diff(margins, axis=0) <= 0).all()


def _examples(x, y):
    from awp_tf.attacks import Examples

    return Examples(x, y, y, tf.range(len(x), dtype=tf.int64))


def test_the_official_schedule_at_other_lengths_is_not_rescaled():
    short, long = (Stripes(tf.zeros([1, 32, 32, 3]), 0.1, queries, 0.8)._sides for queries in (300, 5000))
    np.testing.assert_array_equal(short, long[:300])


def test_a_threat_of_ones_own_that_is_an_linf_ball_is_searched_as_one(network):
    class Mine(Linf):
        pass

    examples = examples_of(network)
    searches = [Square(threat, queries=20) for threat in (Mine(0.02), Linf(0.02))]
    own, plain = (run(search, network, examples, seeds_of(examples)) for search in searches)
    np.testing.assert_array_equal(own.adversarial, plain.adversarial)
