"""examples.compare: its statistics, and that a choice sees validation data only."""

import keras
import numpy as np
import pytest
import scipy.stats

import compare
from awp_tf.perturbations import AWP


def test_the_paired_interval_is_that_of_a_t_test():
    scores, reference = np.random.default_rng(0).normal(90, 2, (2, 7))
    interval = scipy.stats.ttest_rel(scores, reference).confidence_interval(0.95)
    np.testing.assert_allclose(compare.paired(scores, reference)[1:], interval)


def test_the_paired_interval_of_a_worked_example():
    # Differences 1, 2, 3: mean 2, deviation 1, standard error 1 / sqrt 3, and t of two degrees of freedom is 4.303.
    mean, low, high = compare.paired(np.array([11, 12, 13]), np.array([10, 10, 10]))
    assert (mean, low, high) == pytest.approx((2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_the_best_mean_validation_score_is_chosen_and_of_equals_the_lower_loss():
    validation = {"a": [(90, 0.1), (92, 0.1)], "b": [(93, 0.5), (91, 0.7)], "c": [(91, 0.4), (93, 0.5)]}
    assert compare.choose(validation) == "c"


def test_every_method_has_as_many_tries_and_the_same_budget_of_gradients(monkeypatch):
    epochs = []
    monkeypatch.setattr(compare, "Training", lambda task, setting, count, steps: epochs.append(count) or Trained(0))
    methods = compare.methods()
    spent = {}
    for name, method in methods.items():
        compare.result(toy(), method, {0: toy_data(0)}, lambda: None)
        spent[name] = epochs[-1] * method.gradients
        assert len(method.tries) == 3
    assert set(spent.values()) == {20}
    assert methods[compare.HALF].tries == methods[compare.REFERENCE].tries


class Trained:
    """In place of a Training: networks whose validation score is a seed's, and what they were measured on."""

    def __init__(self, bonus, seen=None):
        self.network, self.bonus, self.seen = self, bonus, [] if seen is None else seen

    def fit(self, train, seed):
        self.seen.append(("train", train.x[0, 0]))
        return 1.0

    def measure(self, part):
        self.seen.append(("measured", part.x[0, 0]))
        return self.bonus + float(part.x[0, 0]), 0.0

    def get_weights(self):
        return [self.bonus]

    def set_weights(self, weights):
        (self.bonus,) = weights


def toy_data(seed):
    return compare.Data(*(compare.Part(np.full([8, 2], 10 * seed + i, "float32"), np.zeros(8, int)) for i in range(3)))


def toy(**settings):
    network = lambda: keras.Sequential([keras.Input([2]), keras.layers.Dense(2)])  # noqa: E731
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compare.Task("Toy", toy_data, network, loss, epochs=10, batch_size=4, **settings)


def test_test_data_are_seen_only_once_a_try_is_chosen_and_by_its_networks_only(monkeypatch):
    seen, bonus = [], {"low": 0, "high": 500, "middle": 100}
    monkeypatch.setattr(compare, "Training", lambda task, setting, epochs, steps: Trained(bonus[setting.label], seen))
    splits = {seed: toy_data(seed) for seed in range(2)}
    method = compare.Method(2, [compare.Try(label) for label in bonus])
    result = compare.result(toy(), method, splits, lambda: None)
    assert seen[-2:] == [("measured", 2), ("measured", 12)]
    assert not {("measured", 2), ("measured", 12), ("train", 2)} & set(seen[:-2])
    assert result.chosen == "high"
    assert result.scores.tolist() == [502, 512]


def test_a_seed_begins_anew_whatever_was_trained_before():
    keras.utils.set_random_seed(0)
    data, setting = toy_data(1).train._replace(y=np.arange(8) % 2), compare.Try("gamma", AWP(0.1))
    training = compare.Training(toy(), setting, 2, 2)
    weights = []
    for seed in (3, 4, 3):
        training.fit(data, seed)
        weights.append(training.network.get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[1])


def test_a_split_is_a_function_of_its_seed_without_overlap():
    x = np.arange(20)
    first, again, other = (compare.split(x, x, (8, 5), seed) for seed in (0, 0, 1))
    assert [len(part.x) for part in first] == [8, 5, 7]
    assert sorted(np.concatenate([part.x for part in first])) == list(range(20))
    np.testing.assert_array_equal(first.test.x, again.test.x)
    assert not np.array_equal(first.test.x, other.test.x)
