"""Where parts meet: which network is the best, one ball, warm-up, the data of a run, the final test."""

import dataclasses
import errno
import fcntl
import json

import keras
import numpy as np
import pytest
from helpers import CLASSES, SHAPE, assert_same_weights, tiny_network, tiny_split
from test_loop import make_loop
from test_train import ATTACK, MEASURE, network, recipe, source

from awp_tf.attacks import FGSM, PGD, Clean, Restarts
from awp_tf.data import Data, Source
from awp_tf.evaluation.accuracy import Measurement
from awp_tf.infra.errors import UserError
from awp_tf.infra.progress import Pace
from awp_tf.infra.run_folder import RunFolder, require_same_data
from awp_tf.infra.signals import Interrupted
from awp_tf.methods import AT, Standard
from awp_tf.perturbations import AWP
from awp_tf.threats import L2, Linf
from awp_tf.training import final_test
from awp_tf.training.loop import Loop
from awp_tf.training.train import _perturbs, train

DATA = Data(source, batch_size=16, validation=12)


def run(folder, *, validation=MEASURE, test=MEASURE, data=DATA, epochs=2, of=None, **settings):
    return train(
        recipe=of or recipe(),
        data=data,
        epochs=epochs,
        seed=0,
        workdir=str(folder),
        config="c",
        validation=validation,
        test=test,
        devices=1,
        **settings,
    )


def given(*accuracies):
    """Validation that gives these (robust, clean) accuracies, one after the other."""
    values = iter(accuracies)

    def validate(on_batch):
        robust, clean = next(values)
        return {
            f"{part}/{name}": v
            for part in ("train", "validation")
            for name, v in (("robust", robust), ("clean", clean))
        }

    return validate


@pytest.mark.parametrize(
    ("best_by", "accuracies", "epoch"),
    [
        ("robust", [(0.0, 0.2), (0.0, 0.6), (0.0, 0.4)], 2),  # ordinary training: robust accuracy never moves
        ("robust", [(0.3, 0.5), (0.3, 0.5), (0.3, 0.5)], 1),  # a tie goes to the earlier
        ("robust", [(0.3, 0.5), (0.3, 0.6), (0.2, 0.9)], 2),
        ("robust", [(0.3, 0.9), (0.4, 0.1), (0.3, 1.0)], 2),
        ("clean", [(0.9, 0.2), (0.1, 0.6), (0.5, 0.4)], 2),
        ("clean", [(0.0, 0.6), (0.9, 0.6), (0.0, 0.6)], 1),
    ],
)
def test_the_best_network_is_that_of_the_best_robust_then_clean_accuracy(best_by, accuracies, epoch, tmp_path):
    loop, _ = make_loop(tmp_path, validate=given(*accuracies), best_by=best_by, keep_every=1)
    loop.run()
    assert loop.progress.best_epoch == epoch
    assert_same_weights(
        keras.models.load_model(tmp_path / "best.keras"),
        keras.models.load_model(tmp_path / "epochs" / f"epoch-{epoch:04}.keras"),
    )


def test_early_stopping_counts_from_the_same_best(tmp_path):
    rising = given(*((0.0, clean) for clean in (0.1, 0.2, 0.3, 0.3, 0.3, 0.3)))
    loop, _ = make_loop(tmp_path, epochs=9, validate=rising, patience=2)
    loop.run()
    assert (loop.progress.best_epoch, loop.progress.epoch) == (3, 5)


def test_the_best_clean_accuracy_survives_a_stop(tmp_path):
    make_loop(tmp_path, epochs=2, validate=given((0.0, 0.5), (0.0, 0.4)))[0].run()
    loop, _ = make_loop(tmp_path, epochs=3, validate=given((0.0, 0.45)))
    loop.run()
    assert loop.progress.best_epoch == 1


@pytest.mark.parametrize(("attack", "by"), [(Clean(), "clean"), (ATTACK, "robust")])
def test_a_recipe_without_an_attack_chooses_by_clean_accuracy_and_says_so(attack, by, tmp_path, monkeypatch, capsys):
    chosen = []
    monkeypatch.setattr(Loop, "_is_best", lambda self, values: chosen.append(self._best_by) or True)
    run(tmp_path / "a", epochs=1, of=recipe(method=Standard() if by == "clean" else AT(), attack=attack))
    assert chosen == [by]
    assert f"best.keras (highest {by} accuracy on validation images)" in capsys.readouterr().out


SMALLER, ANOTHER = PGD(Linf(0.05), steps=2), PGD(L2(0.1), steps=2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": recipe(attack=SMALLER)}, r"training Linf\(epsilon=0\.05\), validation Linf\(epsilon=0\.1\)"),
        ({"of": recipe(attack=FGSM(Linf(0.2)))}, r"training Linf\(epsilon=0\.2\)"),
        ({"of": recipe(attack=Restarts(ANOTHER))}, r"training L2\(epsilon=0\.1\)"),
        ({"validation": Measurement(SMALLER)}, r"validation Linf\(epsilon=0\.05\)"),
        ({"test": Measurement(ANOTHER)}, r"test L2\(epsilon=0\.1\)"),
        ({"later": {"protocol": SMALLER}}, r"protocol Linf\(epsilon=0\.05\)"),
        ({"later": {"landscape": ANOTHER}}, r"landscape L2\(epsilon=0\.1\)"),
    ],
)
def test_parts_that_attack_different_balls_are_refused_before_anything_is_written(change, said, tmp_path):
    with pytest.raises(UserError, match=f"threat: expected one ball in all parts of a run, received .*{said}"):
        run(tmp_path / "a", **change)
    assert not (tmp_path / "a").exists()


def test_different_balls_can_be_meant(tmp_path):
    few = Measurement(SMALLER, examples=5)
    assert run(tmp_path / "a", epochs=1, validation=few, test=few, one_ball=False)["best"].keys() >= {"test_robust"}


def test_a_warm_up_that_never_ends_is_said_in_the_first_lines(tmp_path, capsys):
    run(tmp_path / "a", of=recipe(perturbation=AWP(0.05), perturb_from=0.99))
    printed = capsys.readouterr().out
    assert "norm='layer', least_rank=2) never sets in" in "".join(printed.splitlines()[:6])


@pytest.mark.parametrize(("share", "perturbs"), [(0.0, True), (0.045, True), (0.5, True), (0.99, False)])
def test_a_perturbation_sets_in_before_the_run_ends_or_never(share, perturbs):
    made = recipe(perturbation=AWP(0.05), perturb_from=share)
    trainer = made.trainer(SHAPE, CLASSES, epochs=2, steps_per_epoch=3, seed=0)
    assert _perturbs(trainer, 2) == perturbs


@pytest.mark.parametrize("gamma", [0.005, 0.05])
@pytest.mark.parametrize("epochs", [5, 200])
def test_the_share_scales_with_the_length_and_survives_another_gamma(gamma, epochs):
    made = recipe(perturbation=AWP(gamma), perturb_from=9 / 200)
    trainer = made.trainer(SHAPE, CLASSES, epochs=epochs, steps_per_epoch=3, seed=0)
    assert trainer.perturb_from == pytest.approx(epochs * 9 / 200)


@pytest.mark.parametrize("precision", ["float64", "mixed_bfloat16"])
def test_a_trainer_leaves_keras_precision_as_it_was(precision):
    recipe(precision=precision).trainer(SHAPE, CLASSES, epochs=1, steps_per_epoch=1, seed=0)
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


def softmax(shape, classes):
    plain = network(shape, classes)
    return keras.Model(plain.input, keras.layers.Softmax()(plain.output))


def sigmoid(shape, classes):
    plain = network(shape, classes)
    return keras.Model(plain.input, keras.layers.Activation("sigmoid")(plain.output))


def in_dense(shape, classes):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(keras.layers.Flatten()(inputs)))


def a_dict(shape, classes):
    plain = network(shape, classes)
    return keras.Model(plain.input, {"logits": plain.output})


def maps(shape, classes):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Conv2D(classes, 3)(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (softmax, r"expected logits, received probabilities; end it with Dense\(K\) alone"),
        (sigmoid, "expected logits, received probabilities"),
        (in_dense, "expected logits, received probabilities"),
        (a_dict, "expected one tensor of logits, received a dict"),
        (maps, r"to logits \[B, K\], K >= 2"),
        (lambda shape, classes: network(shape, 1), r"to logits \[B, K\], K >= 2"),
        (lambda shape, classes: network(shape, classes - 1), "expected 4 logits, one for each class, received 3"),
    ],
    ids=["softmax", "sigmoid", "softmax in Dense", "dict", "maps", "one output", "too few"],
)
def test_a_network_that_gives_no_logits_is_refused_at_the_start(make, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(tmp_path / "a", of=recipe(network=make))
    assert not (tmp_path / "a").exists()


def stopping_after(batches, monkeypatch):
    """Stops the final test once it has measured so many batches."""
    original = final_test.Evaluator.count

    def count(self, given, on_batch, first=0):
        def interrupting(images):
            on_batch(images)
            left[0] -= 1
            if left[0] < 0:
                raise Interrupted(15)

        return original(self, given, interrupting, first)

    left = [batches]
    monkeypatch.setattr(final_test.Evaluator, "count", count)


def test_the_final_test_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(final_test, "_BATCHES", 2)
    tiny_network(1).save(tmp_path / "best.keras")
    tiny_network(2).save(tmp_path / "last.keras")
    measurement = Measurement(dataclasses.replace(ATTACK, threat=Linf(0.02)), batch_size=5)
    parts = (tmp_path, measurement, tiny_split(30), tiny_split(23, seed=7))
    whole = final_test.measure(*parts, dtype="float32")
    with monkeypatch.context() as patch:
        stopping_after(15, patch)
        with pytest.raises(Interrupted):
            final_test.measure(*parts, dtype="float32")
    kept = json.loads((tmp_path / final_test.STATE).read_text())
    assert (kept["best/test"]["images"], kept["best/train"]["images"]) == (23, 30)
    assert kept["last/test"]["images"] == 20
    capsys.readouterr()
    assert final_test.measure(*parts, dtype="float32") == whole
    assert "going on with the final test after 73 images" in capsys.readouterr().out
    assert not (tmp_path / final_test.STATE).exists()


def test_data_that_changed_since_training_began_are_refused(tmp_path):
    run(tmp_path / "a", epochs=1)
    (tmp_path / "a" / "result.json").unlink()
    train_split, test_split = tiny_split(60), tiny_split(20, seed=7)
    changed = tiny_split(60).images.copy()
    changed[0, 0, 0, 0] += 0.01
    for others, said in (
        (
            Source("tiny", type(train_split)(changed, train_split.labels), test_split, CLASSES),
            "training images 60, SHA",
        ),
        (Source("tiny", train_split, tiny_split(21, seed=7), CLASSES), "test images 20, SHA.*now 21, SHA"),
        (Source("tiny", train_split, test_split, CLASSES, ("a", "b", "c", "d")), r"class names \[\], now \['a'"),
    ):
        with pytest.raises(UserError, match=f"its data have changed since training began: {said}"):
            run(tmp_path / "a", epochs=1, data=dataclasses.replace(DATA, source=lambda it=others: it))
        with pytest.raises(UserError, match="its data have changed"):
            require_same_data(tmp_path / "a", others.identity)
    run(tmp_path / "a", epochs=1)


def test_a_kill_while_the_first_files_are_written_leaves_a_folder_as_good_as_new(tmp_path):
    for name in ("config.gin", "data.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / f".{name}.part{'.gin' if name == 'config.gin' else '.json'}").write_text("hal")
        if name == "config.gin":
            (folder / "data.json").write_text("{}")
        with RunFolder.of(folder, "c").begin({}, {"classes": 4}):
            assert (folder / "config.gin").read_text() == "c"
            assert json.loads((folder / "data.json").read_text()) == {"classes": 4}


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_no_other_process(code, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunFolder.of(tmp_path, "c").begin({}, {}):
        assert "no locks here); see that no other process works in it" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr[0.1]", "what? *"])
def test_names_that_are_patterns_go_on_as_others_do(name, tmp_path):
    folder = tmp_path / name
    make_loop(folder, epochs=1, keep_every=1)[0].run()
    loop, _ = make_loop(folder, epochs=2)
    loop.run()
    assert [epoch["epoch"] for epoch in loop.progress.history] == [1, 2]
    whole, _ = make_loop(tmp_path / "plain", epochs=2)
    whole.run()
    assert_same_weights(*(keras.models.load_model(at / "last.keras") for at in (folder, tmp_path / "plain")))


def test_images_a_second_count_the_images_that_were_trained_on(tmp_path, monkeypatch):
    loop, _ = make_loop(tmp_path, epochs=2)
    seen = []
    monkeypatch.setattr(Pace, "advance", lambda pace, images: seen.append(images) or 1.0)
    loop.run()
    assert sum(seen) == 2 * 80  # for the whole job and for training; 40 an epoch, whose last batch of 16 is short
    assert np.isfinite(loop.progress.best)


def with_lambda(shape, classes):
    plain = network(shape, classes)
    return keras.Model(plain.input, keras.layers.Lambda(lambda x: 2 * x)(plain.output))


def test_a_network_that_could_not_be_read_back_is_refused_before_it_is_trained(tmp_path):
    with pytest.raises(UserError, match=r"expected a network that Keras reads back from a file .*; register"):
        run(tmp_path / "a", of=recipe(network=with_lambda))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("seed", [2**32, 20240101123456, -1, 0.5])
def test_seeds_are_those_that_numpy_takes(seed, tmp_path):
    with pytest.raises(UserError, match="seed: expected a whole number"):
        train(**{**settings_of(tmp_path / "a"), "seed": seed})
    with pytest.raises(UserError, match=r"Data\.validation_seed: expected a whole number"):
        dataclasses.replace(DATA, validation_seed=seed).load()
    assert not (tmp_path / "a").exists()


def settings_of(folder):
    return {
        **{"recipe": recipe(), "data": DATA, "epochs": 1, "workdir": str(folder), "config": "c"},
        **{"validation": MEASURE, "test": MEASURE},
    }
