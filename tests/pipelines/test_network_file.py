"""pipelines.train --network_file: a run that starts from the network of a file, as a person starts it."""

import signal

import gin
import keras
import numpy as np
import pytest
from helpers import assert_same_weights, weights_of

from awp_tf.networks import small_cnn
from pipelines import _cli

QUICK = ("EPOCHS=2", "Data.limit=64", "Data.validation=20", "BATCH_SIZE=32", "Recipe.precision='float64'")
FEW = ("validation/Measurement.examples=20", "test/Measurement.examples=20")


def network(**settings):
    keras.utils.set_random_seed(0)
    return small_cnn(**{"shape": (8, 8, 1), "classes": 10, "width": 4, **settings})


@pytest.fixture
def place(tmp_path):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    network().save(tmp_path / "first.keras")
    return tmp_path


def flags(*bindings, file="first.keras", workdir="run"):
    said = [f"--gin_bindings={binding}" for binding in (*QUICK, *FEW, *bindings)]
    recipe = ["--gin_file=gin/at.gin", "--gin_file=gin/digits.gin", f"--network_file={file}"]
    return [*recipe, *said, *([f"--workdir={workdir}"] if workdir else [])]


def read(file):
    return keras.models.load_model(file)


def test_it_begins_where_the_file_ends_and_its_configuration_says_so(place, commands):
    done = commands.train(*flags("LEARNING_RATE=1e-12"), cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_weights(read(place / "run" / "last.keras"), read(place / "first.keras"), atol=1e-9)
    text = (place / "run" / "config.gin").read_text()
    try:
        assert _cli.parse([str(place / "run" / "config.gin")], []) == text
        assert str(gin.query_parameter("%NETWORK")) == "@from_file"
        assert gin.query_parameter("from_file.path") == "first.keras"
    finally:
        gin.clear_config()
    again = commands.train(*flags("LEARNING_RATE=1e-12"), cwd=place)
    assert "holds a finished run; nothing to do" in again.stdout
    other = commands.train(*flags("LEARNING_RATE=1e-12", file="./first.keras"), cwd=place)
    assert other.returncode == 2
    assert "from_file.path" in other.stderr


def test_its_folder_is_named_after_the_file_too(place, commands):
    done = commands.train(*flags("EPOCHS=1", "from_file.trainable=1", workdir=None), cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    last = place / "runs" / "at+digits+first" / "last.keras"
    same = [
        np.array_equal(one, other)
        for one, other in zip(weights_of(read(last)), weights_of(read(place / "first.keras")), strict=True)
    ]
    assert same == [True] * 10 + [False] * 2


@pytest.mark.slow
def test_the_same_command_goes_on(place, commands):
    assert commands.train(*flags(workdir="whole"), cwd=place).returncode == 0
    process = commands.start("pipelines.train", *flags(workdir="part"), cwd=place)
    process.until(lambda: list((place / "part").glob("checkpoints/*.index")))
    process.send_signal(signal.SIGTERM)
    process.end()
    assert not (place / "part" / "result.json").exists()
    done = commands.train(*flags(workdir="part"), cwd=place)
    assert "going on from epoch" in done.stdout, done.stderr
    whole, part = (read(place / name / "last.keras") for name in ("whole", "part"))
    assert_same_weights(whole, part)
    moved = zip(weights_of(whole), weights_of(read(place / "first.keras")), strict=True)
    assert all((one != other).any() for one, other in moved)


def softmax():
    plain = network()
    return keras.Model(plain.input, keras.layers.Softmax()(plain.output))


def with_lambda():
    plain = network()
    return keras.Model(plain.input, keras.layers.Lambda(lambda x: 2 * x)(plain.output))


BAD = {
    "nothing": (None, "from_file.path: expected a .keras file, received 'bad.keras'"),
    "shape": (lambda: network(shape=(8, 8, 3)), "bad.keras: expected a network for images of shape (8, 8, 1)"),
    "classes": (
        lambda: network(classes=7),
        "bad.keras: expected a network for the 10 classes of the data",
    ),
    "softmax": (softmax, "bad.keras: expected logits, received probabilities"),
    "unsafe": (with_lambda, "bad.keras cannot be read as a Keras network; Requested the deserialization of a `Lambda`"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_file_that_does_not_fit_is_one_line_and_leaves_no_folder(make, message, place, commands):
    if make:
        make().save(place / "bad.keras")
    refuse(commands.train(*flags(file="bad.keras"), cwd=place), message, place)


def test_other_slips_are_one_line(place, commands):
    (place / "bad.h5").write_text("")
    for file, message in (
        ("bad.h5", "from_file.path: expected a .keras file, received 'bad.h5'"),
        ("", "from_file.path: expected a .keras file, received ''"),
        ("gs://bucket/first.keras", "gs://bucket/first.keras: expected a path on this machine"),
    ):
        refuse(commands.train(*flags(file=file), cwd=place), message, place)
    for binding, message in (
        ("NETWORK=@small_cnn", "--network_file: expected it without --gin_bindings=NETWORK=@small_cnn"),
        ("Recipe.precision='float32'", "first.keras: expected a network that takes float32"),
        ("small_cnn.width=8", "small_cnn.width: changes nothing, since no part of this recipe is small_cnn"),
    ):
        refuse(commands.train(*flags(binding), cwd=place), message, place)


def refuse(done, message, place):
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place / "run").exists()
