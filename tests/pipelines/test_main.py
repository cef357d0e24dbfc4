"""What surrounds a command: another folder, other settings of Keras, a closed pipe, a full disk."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from awp_tf.infra.errors import UserError
from pipelines import _main

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "pipelines.train"]
SHORT = ["--gin_file=gin/at.gin", "--gin_file=gin/digits.gin", "--gin_bindings=EPOCHS=1"]
FEW = ["--gin_bindings=Data.limit=128", "--gin_bindings=test/Measurement.examples=64"]


def run(*flags, cwd=ROOT, line=TRAIN, **environment):
    return subprocess.run(
        [*line, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def keras_home(tmp_path_factory):
    """A home in which Keras is configured for other projects."""
    home = tmp_path_factory.mktemp("keras")
    (home / "keras.json").write_text(json.dumps({"image_data_format": "channels_first", "backend": "torch"}))
    return home


def test_from_another_folder_with_keras_configured_for_other_projects(keras_home, tmp_path):
    environment = {"KERAS_HOME": str(keras_home), "KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"}
    done = run(*SHORT, *FEW, "--gin_bindings=small_cnn.width=2", "--workdir=run", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        "import sys; import pipelines; import awp_tf.networks, keras; "
        "print(keras.models.load_model('run/best.keras').get_layer('conv1.1').kernel.shape)"
    )
    shape = run(line=[sys.executable, "-c", code], cwd=tmp_path).stdout
    assert shape.strip() == "(3, 3, 1, 2)"  # the grey channel, not the image's height


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback(tmp_path):
    line = " ".join([*TRAIN, *SHORT, *FEW, f"--workdir={tmp_path}/run"])
    done = run(line=["bash", "-c", f"{line} | head -1; exit ${{PIPESTATUS[0]}}"])
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_code_2(tmp_path):
    limit = "ulimit -f 40; trap '' XFSZ"  # blocks of a KiB: the first network does not fit, as where a disk is full
    line = " ".join([*TRAIN, *SHORT, *FEW, f"--workdir={tmp_path}/run"])
    done = run(line=["bash", "-c", f"{limit}; {line}"])
    assert done.returncode == 2
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("error: cannot be written: ")
    assert said.endswith("Make room, or choose another folder; the same command goes on from what is there.")
    whole = run(*SHORT, *FEW, f"--workdir={tmp_path}/run")
    assert (whole.returncode, whole.stderr) == (0, "")


@pytest.mark.parametrize("name", ["gs://bucket/run", "s3://bucket/run"])
def test_an_address_elsewhere_is_no_folder(name, tmp_path, commands):
    done = commands.train(*SHORT, f"--workdir={name}", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name}: expected a path on this machine" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_home_folder_is_that_of_the_person(tmp_path):
    done = run(*SHORT, *FEW, "--workdir=~/run", cwd=ROOT, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    assert not (ROOT / "~").exists()


def test_two_devices_from_the_command_line(tmp_path, commands):
    done = commands.train(*SHORT, *FEW, "--gin_bindings=train.devices=2", f"--workdir={tmp_path}/run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on 2 CPU" in done.stdout


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EACCES, "cannot be used: .*Permission denied.* Expected permission for it"),
        (errno.ENOSPC, "cannot be written: .*No space left on device.* Make room, or choose another folder"),
    ],
)
def test_a_file_that_may_not_be_read_is_no_full_disk(code, message):
    def fail():
        with _main._plain_failures():
            raise OSError(code, os.strerror(code), "/data/train/cat")

    with pytest.raises(UserError, match=message):
        fail()


def test_another_error_of_the_system_is_not_hidden():
    def fail():
        with _main._plain_failures():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output error"):
        fail()
