import collections

import numpy as np
import pytest

from awp_tf.continual.memory import Reservoir
from awp_tf.infra.errors import UserError


def filled(capacity, batches, seed=0):
    """A memory that has seen images 0, 1, 2, ... in batches of 10, each image its number."""
    memory = Reservoir(capacity, (1, 1, 1), seed)
    for batch in range(batches):
        labels = np.arange(10 * batch, 10 * batch + 10)
        memory.add(labels.reshape(-1, 1, 1, 1) / 1000, labels, task=batch)
    return memory


def test_everything_that_was_added_is_in_it_with_the_same_probability():
    """Chi-square of how often each of 50 images is kept in 2,000 memories of 10."""
    counts = collections.Counter()
    for seed in range(2000):
        counts.update(filled(10, 5, seed).draw(10, 0).labels.tolist())
    found = np.array([counts[k] for k in range(50)])
    expected = 2000 * 10 / 50
    # Each count has variance n p (1 - p), and they add up: 49 degrees of freedom, of which 99.9 % are below 85.
    chi_square = ((found - expected) ** 2 / (expected * (1 - 10 / 50))).sum() * 49 / 50
    assert chi_square < 85
    assert found.min() > 0


def test_batches_that_were_added_first_have_no_advantage():
    ages = np.mean([filled(10, 5, seed).draw(10, 0).tasks.mean() for seed in range(500)])
    assert ages == pytest.approx(2.0, abs=0.1)


def test_rows_belong_together_and_are_drawn_once():
    rows = filled(20, 5).draw(20, step=3)
    assert len(set(rows.labels.tolist())) == 20
    np.testing.assert_allclose(rows.images[:, 0, 0, 0] * 1000, rows.labels, rtol=1e-5)
    np.testing.assert_array_equal(rows.labels // 10, rows.tasks)


def test_what_is_drawn_is_a_function_of_seed_and_step():
    one, same, other = filled(20, 5), filled(20, 5), filled(20, 5, seed=1)
    assert one.draw(5, 7).labels.tolist() == same.draw(5, 7).labels.tolist()
    assert one.draw(5, 7).labels.tolist() != one.draw(5, 8).labels.tolist()
    assert one.draw(5, 7).labels.tolist() != one.draw_for_basis(5, 7).labels.tolist()
    assert one.draw(20, 0).labels.tolist() != other.draw(20, 0).labels.tolist()


def test_it_comes_back_from_a_checkpoint_and_goes_on_the_same():
    before, after = filled(20, 3), Reservoir(20, (1, 1, 1))
    after.deserialize(before.serialize())
    for memory in (before, after):
        memory.add(np.ones([10, 1, 1, 1]), np.arange(500, 510), task=9)
    assert before.draw(20, 0).labels.tolist() == after.draw(20, 0).labels.tolist()


def test_no_capacity_is_no_memory():
    memory = filled(0, 3)
    assert len(memory) == 0
    assert memory.draw(5, 0).images.shape == (0, 1, 1, 1)


def test_a_negative_capacity_is_refused():
    with pytest.raises(UserError, match=r"Reservoir\.capacity: expected a whole number >= 0"):
        Reservoir(-1, (1, 1, 1))
