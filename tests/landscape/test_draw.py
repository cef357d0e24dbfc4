"""Landscapes from end to end: files, figures, the command, bad input."""

import dataclasses
import json
import pathlib
import xml.etree.ElementTree

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import read_npz, run_command, tiny_network, tiny_split

import pipelines.landscape as command
from awp_tf.attacks import PGD
from awp_tf.evaluation.accuracy import Measurement, evaluate, robust_gap
from awp_tf.infra.errors import UserError
from awp_tf.landscape.draw import View, draw
from awp_tf.landscape.result import Result, correlation, sharpness
from awp_tf.landscape.settings import Landscape
from awp_tf.networks import small_cnn
from awp_tf.networks.classifier import digest
from awp_tf.threats import Linf
from pipelines import _cli

ATTACK = PGD(Linf(0.1), steps=2)
SETTINGS = Landscape(ATTACK, alphas="-1:1:3", directions=2, fixed=True, plane="-1:1:3", batch_size=16, examples=None)


@pytest.fixture(autouse=True)
def forget():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    for name, seed in (("one", 0), ("two", 1), ("three", 2)):
        tiny_network(seed).save(folder / f"{name}.keras")
    train, test = tiny_split(40), tiny_split(20, seed=7)
    return [View(name, folder / f"{name}.keras", train, test) for name in ("one", "two", "three")]


@pytest.fixture(scope="module")
def drawing(views, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "landscape"
    return folder, draw(views, SETTINGS, str(folder), config="EPOCHS = 1")


def test_numbers_arrays_and_the_networks_own_gap(drawing, views):
    folder, content = drawing
    arrays = read_npz(folder / "landscape.npz")
    for view, found in zip(views, content["networks"], strict=True):
        measurement = Measurement(ATTACK, examples=None, batch_size=16)
        robust = {
            part: evaluate(view.network(), measurement.batches(split, "float32"), {"robust": ATTACK})["robust"]
            for part, split in (("train", view.train), ("test", view.test))
        }
        assert found["robust_gap"] == robust_gap(robust["train"], robust["test"])
        assert arrays[f"{view.name}/robust_test"] == robust["test"]
        loss, alphas = arrays[f"{view.name}/random 1/loss"], arrays[f"{view.name}/random 1/alpha"][:, 0]
        np.testing.assert_allclose(loss[alphas == 0], found["loss"])
        both = np.stack([loss, arrays[f"{view.name}/random 2/loss"]])
        rise = (both[:, alphas == 1] + both[:, alphas == -1]) / 2 - both[:, alphas == 0]
        np.testing.assert_allclose(found["sharpness"]["1"], [rise.mean(), rise.std(ddof=1)])
    assert str(arrays["config"]) == "EPOCHS = 1"
    assert "correlation of g(0.5) - g(0) with the robust gap over 3 networks" in content["text"]


def test_figures_are_there_as_png_and_svg_and_in_tensorboard(drawing):
    folder, _ = drawing
    names = {file.stem for file in folder.glob("*.png")}
    planes = {f"landscape_plane_{number}" for number in (1, 2, 3)}
    assert names == {"landscape", "landscape_fixed_images", "landscape_awp_direction", *planes}
    for name in names:
        height, width, _ = tf.io.decode_png((folder / f"{name}.png").read_bytes()).shape
        assert width > 700
        assert height > 500
        text = (folder / f"{name}.svg").read_text()
        assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")
        assert f"]({name}.png)" in (folder / "landscape.md").read_text()
    assert list((folder / "tensorboard").iterdir())
    assert not (folder / "state").exists()


def test_the_same_seed_gives_the_same_files_and_another_seed_others(drawing, views, tmp_path):
    folder, _ = drawing
    draw(views[:1], SETTINGS, str(tmp_path / "again"), config="EPOCHS = 1")
    plane = "landscape_plane_1.svg"
    assert (tmp_path / "again" / plane).read_bytes() == (folder / plane).read_bytes()
    again, drawn = (read_npz(path / "landscape.npz") for path in (tmp_path / "again", folder))
    for name in again:
        if name.startswith(f"{views[0].name}/"):
            np.testing.assert_array_equal(again[name], drawn[name])
    few = Landscape(ATTACK, alphas=[0, 1], directions=1, awp_length=0, seed=1)
    other = draw(views[:1], few, str(tmp_path / "other"))
    first = draw(views[:1], dataclasses.replace(few, seed=0), str(tmp_path / "first"))
    assert other["networks"][0]["sharpness"]["1"] != first["networks"][0]["sharpness"]["1"]


@pytest.mark.parametrize("part", ["all", "a layer"])
def test_a_network_that_was_saved_frozen_moves_all_the_same(part, views, tmp_path):
    network = views[0].network()
    (network if part == "all" else network.get_layer("conv2.1")).trainable = False
    network.save(tmp_path / "frozen.keras")
    frozen = dataclasses.replace(views[0], path=tmp_path / "frozen.keras")
    settings = Landscape(ATTACK, [0, 1], 1, 0)
    found = [draw([view], settings, str(tmp_path / str(i))) for i, view in enumerate((views[0], frozen))]
    one, other = (content["networks"][0]["sharpness"]["1"][0] for content in found)
    assert one == other != 0


def test_a_network_without_kernels_is_refused(views, tmp_path):
    inputs = keras.Input((8, 8, 1))
    bias = keras.layers.BatchNormalization()(keras.layers.Flatten()(inputs))
    keras.Model(inputs, bias[:, :4]).save(tmp_path / "none.keras")
    with pytest.raises(UserError, match="expected a network with trainable kernels"):
        draw([dataclasses.replace(views[0], path=tmp_path / "none.keras")], SETTINGS, str(tmp_path / "out"))


def test_probabilities_are_not_taken_for_logits(views, tmp_path):
    parts = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4, activation="softmax")]
    keras.Sequential(parts).save(tmp_path / "soft.keras")
    with pytest.raises(UserError, match=r"soft\.keras: expected logits, received probabilities"):
        draw([dataclasses.replace(views[0], path=tmp_path / "soft.keras")], SETTINGS, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_network_under_two_names_is_surveyed_once(views, tmp_path, capsys):
    same = dataclasses.replace(views[0], name="the same", epoch=3)
    content = draw([views[0], same], Landscape(ATTACK, [0, 1], 1, 0), str(tmp_path / "out"))
    assert "1 network x 4 points" in capsys.readouterr().out
    first, second = content["networks"]
    assert (second["name"], second["epoch"]) == ("the same", 3)
    assert {**first, "name": "", "epoch": 0} == {**second, "name": "", "epoch": 0}


def test_networks_are_not_changed_and_a_finished_drawing_is_not_repeated(views, tmp_path, capsys):
    before = [digest(view.path) for view in views]
    settings = Landscape(ATTACK, alphas=[0, 0.5], directions=1, awp_length=0)
    first = draw(views, settings, str(tmp_path / "out"))
    assert "3 networks x 3 points x 40 images" in capsys.readouterr().out
    again = draw(views, settings, str(tmp_path / "out"))
    assert again == json.loads(json.dumps(first))
    assert "finished; nothing to do" in capsys.readouterr().out
    assert [digest(view.path) for view in views] == before


def test_what_does_not_fit_is_refused_and_nothing_is_written(views, tmp_path):
    one, small = views[0], Landscape(ATTACK, alphas=[0, 0.5], directions=1, awp_length=0)
    colour = tiny_split(10)
    colour = type(colour)(np.repeat(colour.images, 3, axis=-1), colour.labels)
    empty = type(colour)(one.train.images[:0], one.train.labels[:0])
    for message, broken in [
        ("expected each network once", [one, one]),
        ("expected a .keras file", [View("x", tmp_path / "no.keras", one.train, one.test)]),
        ("expected images", [View("x", one.path, colour, colour)]),
        ("N > 0", [View("x", one.path, empty, one.test)]),
    ]:
        with pytest.raises(UserError, match=message):
            draw(broken, small, str(tmp_path / "out"))
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        draw([one], small, str(tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == {"thesis.tex"}


def test_a_folder_of_another_drawing_is_refused(drawing, views):
    folder, _ = drawing
    with pytest.raises(UserError, match="holds a landscape of another network"):
        draw(views[:1], SETTINGS, str(folder))


def test_through_training_the_gap_is_drawn_by_epoch(views, tmp_path):
    epochs = [View(f"epoch {n}", v.path, v.train, v.test, "tiny", "run", n) for n, v in enumerate(views, start=1)]
    settings = Landscape(ATTACK, alphas=[-0.5, 0, 0.5], directions=1, awp_length=0)
    content = draw(epochs, settings, str(tmp_path / "out"))
    assert [network["epoch"] for network in content["networks"]] == [1, 2, 3]
    assert ">epoch<" in (tmp_path / "out" / "landscape.svg").read_text()


def test_sharpness_of_a_parabola():
    alphas = np.array([-1, -0.5, -0.25, 0, 0.25, 0.5])
    found = sharpness(alphas, np.stack([2 + 3 * alphas**2, 2 + 5 * alphas**2]))
    assert found[0.25] == pytest.approx((4 / 16, np.std([3, 5], ddof=1) / 16))
    assert found[0.5] == pytest.approx((1.0, np.std([3, 5], ddof=1) / 4))
    assert found[1.0] == pytest.approx((4.0, np.std([3, 5], ddof=1)))
    assert set(sharpness(np.array([0, 0.1]), np.zeros([1, 2]))) == set()


def test_correlation():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert np.isnan(correlation([1, 2], [1, 2]))
    assert np.isnan(correlation([1, 1, 1], [1, 2, 3]))


def test_the_gap_of_a_landscape_drawn_on_test_images():
    heights = {"start": np.array([[1.0, 0.4]]), "other": np.array([[0.5, 0.7]])}
    settings = Landscape(ATTACK, split="test")
    assert Result("a", "a", None, heights, settings).gap == pytest.approx(0.3)


def run(*flags):
    run_command(command, *flags)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two run folders, as training leaves them."""
    folder = tmp_path_factory.mktemp("runs")
    for leaf in ("at", "trades_awp"):
        path = folder / leaf
        (path / "epochs").mkdir(parents=True)
        network = small_cnn(shape=(8, 8, 1), classes=10, width=4)
        for name in ("best", "last", "epochs/epoch-0002", "epochs/epoch-0010"):
            network.save(path / f"{name}.keras")
        (path / "config.gin").write_text(_cli.parse([f"gin/{leaf}.gin", "gin/digits.gin"], []))
    gin.clear_config()
    return folder


FEW = ["--max_examples=30", "--alphas=-0.5:0.5:3", "--directions=1", "--awp_length=0"]


def test_two_runs_in_one_figure(trained, tmp_path):
    run(f"--workdir={trained}/at,{trained}/trades_awp", f"--output={tmp_path}/out", *FEW)
    content = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert [network["name"] for network in content["networks"]] == ["at", "trades_awp"]
    assert "steps=10" in content["settings"]
    assert "epsilon=0.15" in content["settings"]


def test_one_run_through_its_training_on_two_devices(trained):
    run(f"--workdir={trained}/at", "--network=best,epochs", "--devices=2", *FEW)
    content = json.loads((trained / "at" / "landscape_best_epochs" / "landscape.json").read_text())
    assert [network["name"] for network in content["networks"]] == ["best", "epoch 2", "epoch 10"]


def test_any_network(views, tmp_path):
    train, test = views[0].train, views[0].test
    np.savez(tmp_path / "a.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    flags = [f"--network={views[0].path},{views[1].path}", f"--data={tmp_path}/a.npz", "--threat=linf:0.1"]
    run(*flags, f"--output={tmp_path}/out", *FEW)
    content = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert content["images"] == {"train": 30, "test": 20}


def test_files_of_one_name_are_told_apart(trained, tmp_path):
    names = [f"{trained}/{leaf}/last.keras" for leaf in ("at", "trades_awp")]
    run(f"--network={','.join(names)}", "--data=digits", "--threat=linf:0.15", f"--output={tmp_path}/out", *FEW)
    content = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert [network["name"] for network in content["networks"]] == ["at/last", "trades_awp/last"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], r"expected --workdir \(a run's folder\), or --network"),
        (["--workdir=nowhere"], "expected the folder of a run"),
        (["--workdir={at}", "--alphas=-1:1:20"], "expected 0"),
        (["--workdir={at}", "--network=first"], "expected best, last, epoch-0010 or epochs"),
        (["--workdir={at}", "--data=digits"], "--data: expected it without --workdir"),
        (["--network={at}/best.keras"], "with --data"),
        (["--network={at}/best.keras", "--data=nothing_known"], "neither digits nor"),
        (["--network=no.keras", "--data=digits"], "expected a .keras file"),
        (["--workdir={at}", "--devices=3"], "devices: expected at most 2 logical CPUs, received 3"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(flags, message, trained, tmp_path):
    given = [flag.replace("{at}", str(trained / "at")) for flag in flags]
    with pytest.raises(UserError, match=message):
        run(*given, f"--output={tmp_path}/out")
    assert not pathlib.Path(tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_loss_is_that_of_the_split_and_the_gap_that_of_training_images(split, views, tmp_path):
    (found,) = draw(views[:1], Landscape(ATTACK, [0, 1], 1, 0, split=split), str(tmp_path / "out"))["networks"]
    arrays, view = read_npz(tmp_path / "out" / "landscape.npz"), views[0]
    for part, images in (("train", view.train), ("test", view.test)):
        batches = Measurement(ATTACK, examples=None).batches(images, "float32")
        robust = evaluate(view.network(), batches, {"robust": ATTACK})["robust"]
        assert arrays[f"{view.name}/robust_{part}"] == pytest.approx(robust, abs=1e-7)
    assert found["robust_gap"] == pytest.approx(
        float(arrays[f"{view.name}/robust_train"] - arrays[f"{view.name}/robust_test"]), abs=1e-7
    )
