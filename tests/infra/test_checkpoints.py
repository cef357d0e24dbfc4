import keras
import numpy as np
import pytest
from helpers import SHAPE, assert_same_weights, tiny_batch, tiny_network, tiny_trainer

from awp_tf.infra.checkpoints import Checkpoints, noise_states, save_network
from awp_tf.infra.errors import UserError
from awp_tf.training.state import TrainingState


def objects(seed=0):
    trainer = tiny_trainer(tiny_network(seed))
    return trainer, {"network": trainer.network, "optimizer": trainer.optimizer}


def saved(folder, steps):
    """Checkpoints after each of some training steps."""
    trainer, parts = objects()
    progress = TrainingState()
    checkpoints = Checkpoints(folder, progress, **parts)
    weights = {}
    for step in range(1, steps + 1):
        trainer.train_step(tiny_batch(seed=step))
        progress.step, progress.sums = step, {"loss": 0.1 * step}
        checkpoints.save()
        weights[step] = trainer.network.get_weights()
    return trainer, weights


def restored(folder):
    trainer, parts = objects(seed=9)
    progress = TrainingState()
    return Checkpoints(folder, progress, **parts).restore(), trainer, progress


def test_everything_comes_back(tmp_path):
    before, _ = saved(tmp_path, 3)
    found, after, progress = restored(tmp_path)
    assert found
    assert (progress.step, progress.sums) == (3, {"loss": pytest.approx(0.3)})
    for one, other in zip(before.optimizer.variables, after.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert_same_weights(before.network, after.network)


def test_only_the_newest_two_are_kept(tmp_path):
    saved(tmp_path, 4)
    assert {file.name.split(".")[0] for file in tmp_path.iterdir()} == {"step-3", "step-4"}


def test_what_a_kill_left_of_a_checkpoint_is_cleared_away(tmp_path):
    (tmp_path / "step-1_temp").mkdir()
    (tmp_path / "step-1_temp" / "part-00000-of-00001.data").write_text("half")
    saved(tmp_path, 2)
    assert {file.name.split(".")[0] for file in tmp_path.iterdir()} == {"step-1", "step-2"}


@pytest.mark.parametrize("part", ["data", "index"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, part, damage, capsys):
    _, weights = saved(tmp_path, 3)
    file = next(tmp_path.glob(f"step-3.{part}*"))
    content = file.read_bytes()
    middle = len(content) // 2
    broken = {
        "truncate": content[:middle],
        "flip": content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :],
        "empty": b"",
    }
    file.write_bytes(broken[damage])
    found, trainer, progress = restored(tmp_path)
    assert found
    assert progress.step == 2
    for value, expected in zip(trainer.network.get_weights(), weights[2], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert "step-3 cannot be read" in capsys.readouterr().err


def test_nothing_but_damaged_checkpoints_is_an_error_and_not_a_new_start(tmp_path):
    saved(tmp_path, 3)
    for file in tmp_path.glob("step-*.data*"):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="expected a readable checkpoint, received 2 damaged ones"):
        restored(tmp_path)


def test_a_checkpoint_without_its_index_was_never_finished(tmp_path):
    saved(tmp_path, 3)
    next(tmp_path.glob("step-3.index")).unlink()
    assert restored(tmp_path)[2].step == 2


def test_nothing_to_restore_is_said(tmp_path):
    assert not restored(tmp_path / "nowhere")[0]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "best.keras"
    network = tiny_network()
    save_network(network, path)
    old = path.read_bytes()

    def fail(self, where):
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_network(network, path)
    assert path.read_bytes() == old


def with_dropout():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(inputs))
    return tiny_trainer(keras.Model(inputs, keras.layers.Dense(4)(x)))


def test_noise_of_layers_goes_on_where_it_stopped(float64, tmp_path):
    whole, progress = with_dropout(), TrainingState(step=1)
    for seed in (1, 2):
        whole.train_step(tiny_batch(dtype="float64", seed=seed))
        if seed == 1:
            parts = {"network": whole.network, "optimizer": whole.optimizer, **noise_states(whole.network)}
            Checkpoints(tmp_path, progress, **parts).save()
    again = with_dropout()
    parts = {"network": again.network, "optimizer": again.optimizer, **noise_states(again.network)}
    assert Checkpoints(tmp_path, TrainingState(), **parts).restore()
    again.train_step(tiny_batch(dtype="float64", seed=2))
    assert_same_weights(again.network, whole.network)


def test_networks_without_noise_have_the_checkpoints_they_had():
    assert noise_states(tiny_network()) == {}
    assert [len(states) for states in noise_states(with_dropout().network).values()] == [1]
