"""Exported folders in the hands of others: TensorFlow's C++ loader, ONNX Runtime, a real server, the command."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import run_command

import pipelines.evaluate as evaluate_command
import pipelines.export as command
from awp_tf.export.client import TRANSPORTS, ask
from awp_tf.export.export import export
from awp_tf.export.heads import Head
from awp_tf.export.onnx import export_onnx
from awp_tf.export.settings import Export, Servable
from awp_tf.infra.errors import UserError
from awp_tf.networks import preact_resnet18, small_cnn
from pipelines import _cli
from tools.serving_speed import compare_serving

ROOT = pathlib.Path(__file__).parents[2]
COMPILER = shutil.which("g++")
SERVER = shutil.which("tensorflow_model_server")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def servable(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "net.keras"
    keras.utils.set_random_seed(0)
    preact_resnet18(shape=(16, 20, 3), classes=4, width=4).save(path)
    return Servable("net", path, IMAGES, ["a", "b", "c", "d"], heads=[Head("task 1", (0, 2), ("a", "c"))])


def logits_of(servable, images):
    network = keras.models.load_model(servable.network)
    return network(images.astype(np.float32) / 255, training=False).numpy()


def png_files(folder):
    for number, image in enumerate(IMAGES):
        (folder / f"{number}.png").write_bytes(tf.io.encode_png(image).numpy())
    return [folder / f"{number}.png" for number in range(len(IMAGES))]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
def test_the_cpp_loader_of_tensorflow_answers_as_python_does(servable, tmp_path):
    folder = export(servable, Export(batch_sizes=(1, 4)), str(tmp_path / "serving"))
    program = tmp_path / "loader"
    wheel = pathlib.Path(tf.sysconfig.get_lib())
    libraries = [f"-l:{file.name}" for file in sorted(wheel.glob("libtensorflow_*.so.2"))]
    source = ROOT / "tests" / "serving_loader.cc"
    flags = [flag for flag in tf.sysconfig.get_compile_flags() if not flag.startswith("-std")]
    # Without --no-as-needed the linker drops the library that registers sessions.
    link = ["-Wl,--no-as-needed", f"-L{wheel}", *libraries, f"-Wl,-rpath,{wheel}"]
    subprocess.run([COMPILER, "-w", "-std=c++17", "-O1", *flags, str(source), "-o", str(program), *link], check=True)
    sizes = ["20", "16", "3"]
    command = [str(program), str(folder), *sizes, *map(str, png_files(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert sorted(set(found["signatures"]) - {"__saved_model_init_op"}) == [
        "serving_bytes",
        "serving_default",
        "task_1",
    ]
    assert found["replayed"] == 6
    ramp = (np.arange(3 * 16 * 20 * 3) % 256).astype(np.uint8).reshape(3, 16, 20, 3)
    np.testing.assert_allclose(found["ramp"], logits_of(servable, ramp).reshape(-1), atol=1e-5)
    np.testing.assert_allclose(found["files"], logits_of(servable, IMAGES).reshape(-1), atol=1e-5)
    assert found["empty"] == 0
    assert found["wrong_shape"] == found["no_image"] == tf.errors.INVALID_ARGUMENT


@pytest.mark.slow
def test_onnx_runtime_answers_as_the_network_does(servable, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra 'onnx' is not installed")
    pytest.importorskip("tf2onnx", reason="extra 'onnx' is not installed")
    path = export_onnx(servable, str(tmp_path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 6):
        logits, ids = session.run(["logits", "class_ids"], {"images": IMAGES[:count]})
        np.testing.assert_allclose(logits, logits_of(servable, IMAGES[:count]), atol=1e-5)
        np.testing.assert_array_equal(ids, logits.argmax(-1))
    assert json.loads((tmp_path / "net.json").read_text())["evaluated"] is False
    with pytest.raises(UserError, match="is there already"):
        export_onnx(servable, str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written .*; choose another folder"):
        export_onnx(servable, str(tmp_path / "file"))


@pytest.mark.slow
def test_onnx_is_float32_where_the_network_computes_in_16_bits(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra 'onnx' is not installed")
    pytest.importorskip("tf2onnx", reason="extra 'onnx' is not installed")
    networks = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        networks.append(preact_resnet18(shape=(16, 20, 3), classes=4, width=2))
    keras.config.set_dtype_policy("float32")
    networks[1].set_weights(networks[0].get_weights())
    networks[1].save(tmp_path / "net.keras")
    path = export_onnx(Servable("net", tmp_path / "net.keras", IMAGES), str(tmp_path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = networks[0](IMAGES.astype(np.float32) / 255, training=False)
    np.testing.assert_allclose(session.run(["logits"], {"images": IMAGES})[0], expected, atol=1e-5)


@pytest.mark.slow
def test_speed_is_compared_in_turns(servable, tmp_path):
    folder = export(servable, Export(), str(tmp_path / "serving"))
    text = compare_serving(str(folder), str(servable.network), [1, 2], runs=3)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert [line[:2] for line in lines] == [[n, name] for n in "12" for name in ("exported", "predict_on_batch")]
    assert all(float(line[2]) > 0 and float(line[3].split()[0]) <= float(line[4].split()[0]) for line in lines)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(SERVER is None, reason="tensorflow_model_server is not installed")
def test_a_real_server_answers_and_takes_a_second_version_without_a_failed_request(servable, tmp_path):
    base = tmp_path / "serving"
    model = export(servable, Export(), str(base)).parent
    ports = {"grpc": free_port(), "rest": free_port()}
    command = [SERVER, f"--port={ports['grpc']}", f"--rest_api_port={ports['rest']}", "--model_name=net"]
    command += [f"--model_base_path={model}", "--file_system_poll_wait_seconds=1"]
    files = [file.read_bytes() for file in png_files(tmp_path)]
    expected = logits_of(servable, IMAGES)
    with subprocess.Popen(command) as server:
        try:
            transports = {name: TRANSPORTS[name](f"127.0.0.1:{port}", "net") for name, port in ports.items()}
            for transport in transports.values():
                found = ask(transport, files, deadline=60)
                np.testing.assert_allclose([answer.logits for answer in found], expected, atol=1e-5)
            answers, stop = [], threading.Event()

            def keep_asking():
                while not stop.is_set():
                    answers.extend(ask(transports["grpc"], files[:1], deadline=5))

            asking = threading.Thread(target=keep_asking)
            asking.start()
            export(servable, Export(), str(base))
            newest = TRANSPORTS["grpc"](f"127.0.0.1:{ports['grpc']}", "net", 2)
            assert ask(newest, files, deadline=60)
            time.sleep(2)
            stop.set()
            asking.join()
            assert len(answers) > 10
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run of the digits, as training leaves it."""
    path = tmp_path_factory.mktemp("runs") / "my run"
    path.mkdir()
    small_cnn(shape=(8, 8, 1), classes=10, width=4).save(path / "best.keras")
    (path / "config.gin").write_text(_cli.parse(["gin/at.gin", "gin/digits.gin"], ["Export.floats=True"]))
    gin.clear_config()
    (path / "result.json").write_text("{}")
    return path


def test_a_finished_run_is_exported(run_folder, tmp_path, capsys):
    run_command(command, f"--workdir={run_folder}", f"--output={tmp_path}/serving", "--version=5")
    loaded = tf.saved_model.load(str(tmp_path / "serving" / "my_run" / "5"))
    assert sorted(loaded.signatures) == ["serving_bytes", "serving_default", "serving_float"]
    printed = capsys.readouterr().out
    assert f"--model_base_path={tmp_path}/serving/my_run" in printed
    assert "not evaluated" in printed


@pytest.fixture
def run_of_tasks(run_folder, tmp_path):
    """A run as learning one task after another leaves it: its last network, and heads."""
    path = tmp_path / "runs" / "tasks"
    shutil.copytree(run_folder, path)
    (path / "best.keras").rename(path / "last.keras")
    heads = [{"name": f"task {i + 1}", "classes": [2 * i, 2 * i + 1], "class_names": []} for i in range(5)]
    (path / "heads.json").write_text(json.dumps(heads))
    return path


@pytest.mark.slow
def test_a_run_of_tasks_is_exported_with_a_signature_a_task(run_of_tasks, tmp_path, capsys):
    run_command(command, f"--workdir={run_of_tasks}", f"--output={tmp_path}/serving")
    loaded = tf.saved_model.load(str(tmp_path / "serving" / "tasks" / "1"))
    tasks = [f"task_{i}" for i in range(1, 6)]
    assert sorted(loaded.signatures) == ["serving_bytes", "serving_default", "serving_float", *tasks]
    assert f"signatures of tasks: {', '.join(tasks)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ("[{", "heads.json: expected a list of heads"),
        ('[{"name": "task 6", "classes": [9, 10]}]', "expected heads with classes below 10, received [9, 10]"),
    ],
)
def test_heads_that_do_not_fit_are_one_line_and_nothing_is_written(heads, message, run_of_tasks, tmp_path):
    (run_of_tasks / "heads.json").write_text(heads)
    with pytest.raises(UserError, match=re.escape(message)):
        run_command(command, f"--workdir={run_of_tasks}", f"--output={tmp_path}/serving")
    assert not (tmp_path / "serving").exists()


@pytest.mark.slow
def test_the_evaluation_of_a_run_goes_with_it(run_folder, tmp_path, capsys):
    flags = [f"--output={run_folder}/evaluation", "--attacks=fgsm", "--max_examples=20", "--check_examples=5"]
    run_command(evaluate_command, f"--workdir={run_folder}", *flags)
    run_command(command, f"--workdir={run_folder}", f"--output={tmp_path}", "--model=rated")
    assert "with its robustness card" in capsys.readouterr().out
    card = json.loads((tmp_path / "rated" / "1" / "assets.extra" / "robustness_card.json").read_text())
    assert card["evaluated"] is True
    assert card["evaluation"]["accuracy"]["test"].keys() == {"clean", "fgsm/fgsm", "fgsm", "worst case"}
    page = (tmp_path / "rated" / "1" / "assets.extra" / "robustness_card.md").read_text()
    assert "# Robustness of my run" in page
    assert card["export"]["network_sha256"] in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --workdir (a run's folder)"),
        (["--workdir=nowhere"], "expected the folder of a run (with config.gin)"),
        (["--workdir={tmp}"], "expected the folder of a run (with config.gin)"),
        (["--workdir={run}", "--version=new"], "--version: expected a whole number >= 1, received 'new'"),
        (["--workdir={run}", "--version=0"], "--version: expected a whole number >= 1, received '0'"),
        (["--workdir={run}", "--evaluation={tmp}/other.json"], "received that of another network"),
        (["--workdir={run}", "--output={tmp}/other.json"], "cannot be written"),
        (["--workdir={run}", "--seed=1"], "--seed: plays no part"),
        (["--workdir={run}", "--data=digits"], "expected it without --workdir"),
        (["--workdir={run}", "--keep=0"], "expected a whole number >= 1"),
        (["--network=no.keras", "--data=digits"], "expected a .keras file"),
        (["--network={run}/config.gin", "--data=digits"], "expected a .keras file to export"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(flags, message, run_folder, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"network": {"sha256": "0"}}))
    given = [flag.format(run=run_folder, tmp=tmp_path) for flag in flags]
    with pytest.raises(UserError, match=re.escape(message)):
        run_command(command, f"--output={tmp_path}/serving", *given)
    assert {file.name for file in tmp_path.iterdir()} == {"other.json"}
