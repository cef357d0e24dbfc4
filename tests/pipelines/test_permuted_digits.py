"""What is claimed of flat minima in continual learning: permuted digits, three seeds, in the released settings."""

import functools

import gin
import numpy as np
import pytest

from awp_tf.continual.learn import learn
from awp_tf.continual.settings import Continual
from pipelines import _cli

SEEDS = range(3)
RELEASED = ("Importance.rule='frozen'",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function of a recipe and its bindings: results by seed, each learned once."""

    @functools.cache
    def results(leaf, *bindings):
        found = []
        for seed in SEEDS:
            text = _cli.parse([f"gin/{leaf}.gin"], [*bindings, f"SEED={seed}"], root="Continual.learner")
            found.append(learn(_cli.call(Continual), str(tmp_path_factory.mktemp(leaf) / "run"), text))
        gin.clear_config()
        return found

    return results


def measured(results, name):
    return np.array([result["summary"]["clean"][name] for result in results])


@pytest.mark.slow
def test_replay_is_far_better_than_nothing_and_flat_minima_than_replay(runs):
    sgd, er, fs_er = runs("sgd"), runs("er"), runs("fs_er", "FLAT_STEP=0.1")
    assert measured(er, "acc").mean() > measured(sgd, "acc").mean() + 0.2
    for name in ("acc", "bwt"):
        gained = measured(fs_er, name) - measured(er, name)
        assert gained.mean() > 0
        assert (gained > 0).sum() >= 2


@pytest.mark.slow
def test_fs_dgpm_gains_two_points_over_replay_and_its_released_importance_changes_nothing(runs):
    er, fs_gpm, fs_dgpm = runs("er"), runs("fs_gpm"), runs("fs_dgpm", *RELEASED)
    assert measured(fs_dgpm, "acc").mean() >= measured(er, "acc").mean() + 0.02
    assert measured(fs_dgpm, "bwt").mean() > measured(er, "bwt").mean()
    assert abs(measured(fs_dgpm, "acc").mean() - measured(fs_gpm, "acc").mean()) < 0.005


@pytest.mark.slow
def test_the_larger_the_step_the_flatter_the_loss(runs):
    """How much the loss of all tasks rises at alpha = 1 after the last one; no step is plain replay."""
    chosen = [runs("er"), *(runs("fs_er", f"FLAT_STEP={size}") for size in (0.01, 0.05, 0.1))]
    rises = [np.mean([np.mean([r[-1] for r in result["sharpness"]["rise"][-1]]) for result in each]) for each in chosen]
    assert rises == sorted(rises, reverse=True)
    assert rises[-1] < 0.9 * rises[0]
