import numpy as np
import pytest
import tensorflow as tf
from golden import examples_of, mlp

from awp_tf.attacks import APGD, FAB, PGD, SPSA, LastIterate, Square
from awp_tf.attacks.search import run
from awp_tf.evaluation.runner import Runner, _pad
from awp_tf.networks.classifier import Classifier
from awp_tf.noise import ImageSeeds, make_seed
from awp_tf.threats import L2, Linf

SEARCHES = [
    APGD(Linf(0.005), iterations=30),
    APGD(L2(0.05), "targeted-dlr", iterations=30, targets=1),
    FAB(Linf(0.005), iterations=12, targets=1),
    Square(L2(0.15), queries=80),
    SPSA(Linf(0.01), iterations=8, samples=32),
    LastIterate(PGD(Linf(0.005), steps=7)),
]
KEY = make_seed(3).key


@pytest.fixture(scope="module")
def network():
    return mlp(24, 8, 16, 10, 0)


def runner_of(network, search):
    return Runner(Classifier("mlp", network, (8, 8, 3), 10, "", "float64"), search)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: type(s).__name__)
def test_leaving_the_batch_changes_nothing(network, search):
    examples = examples_of(network)
    outcome = runner_of(network, search)(examples, KEY, 0)
    plain = run(search, network, examples, ImageSeeds(KEY, examples.image))
    np.testing.assert_array_equal(outcome.fooled, np.flatnonzero(plain.fooled))
    assert 0 < len(outcome.fooled) < 24
    wrong = np.argmax(network(tf.constant(outcome.adversarial)), 1) != network.y[outcome.fooled]
    assert wrong.all()


def test_one_trace_serves_every_batch(network):
    runner, examples = runner_of(network, SEARCHES[0]), examples_of(network)
    for count in (24, 1, 7):
        runner(tf.nest.map_structure(lambda t, n=count: t[:n], examples), KEY, 0)
    assert runner._advance.experimental_get_tracing_count() == 1
    assert runner._begin.experimental_get_tracing_count() == 1


def test_fooled_images_are_not_searched_on(network):
    sizes = []

    def predict(x):
        tf.py_function(lambda n: sizes.append(int(n)), [tf.shape(x)[0]], [])
        return network(x)

    runner_of(predict, Square(L2(0.15), queries=80))(examples_of(network), KEY, 0)
    assert sizes[0] == 24
    assert sizes[-1] < 24
    assert sizes == sorted(sizes, reverse=True)


def test_progress_is_reported_and_may_stop_it(network):
    measured = []
    runner_of(network, SEARCHES[0])(examples_of(network), KEY, 0, lambda part, left: measured.append((part, left)))
    parts, left = zip(*measured, strict=True)
    assert list(parts) == sorted(parts)
    assert parts[-1] == 1
    assert list(left) == sorted(left, reverse=True)

    def stop(part, left):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner_of(network, SEARCHES[0])(examples_of(network), KEY, 0, stop)


def test_padding_repeats_a_row_and_adds_at_most_a_sixteenth():
    for count in range(1, 300):
        rows = _pad(np.arange(count))
        assert (rows[:count] == np.arange(count)).all()
        assert (rows[count:] == 0).all()
        assert len(rows) - count <= count / 16
    assert len({len(_pad(np.arange(count))) for count in range(128, 257)}) <= 18
