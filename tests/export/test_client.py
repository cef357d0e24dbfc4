"""The client, against servers in this process that speak TF Serving's protocols and answer by the exported graph."""

import base64
import concurrent.futures
import http.server
import io
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.request

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_network
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from awp_tf.export.client import TRANSPORTS, Grpc, Rest, Unavailable, ask
from awp_tf.export.heads import Head
from awp_tf.export.settings import Limits
from awp_tf.export.signatures import ServingModule
from awp_tf.infra.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
SERVED = ServingModule(tiny_network(), ["a", "b", "c", "d"], Limits(), [Head("task 1", (3, 1), ("d", "b"))])
# Traced here, not in a server's thread.
SIGNATURES = {name: function.get_concrete_function() for name, function in SERVED.signatures(floats=False).items()}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
FILES = [tf.io.encode_png(image).numpy() for image in PIXELS]


class Predictor(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as tensorflow_model_server does; unavailable at first where asked to be."""

    def __init__(self, unavailable=0):
        self.unavailable = unavailable
        self.asked = []

    def Predict(self, request, context):  # noqa: N802
        self.asked.append(request)
        if len(self.asked) <= self.unavailable:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        answer = predict_pb2.PredictResponse()
        values = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        try:
            outputs = SIGNATURES[request.model_spec.signature_name](**values)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message[-500:])
        for name, value in outputs.items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer


class Handler(http.server.BaseHTTPRequestHandler):
    """The REST API's predict, row format."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if len(self.server.asked) <= self.server.unavailable:
            return self.answer(503, {"error": "starting"})
        images = tf.stack([self.image(**row) for row in body["instances"]])
        try:
            outputs = SIGNATURES[body["signature_name"]](images)
        except tf.errors.InvalidArgumentError as error:
            return self.answer(400, {"error": error.message[-500:]})
        rows = [
            {
                name: v[i].numpy().decode() if v.dtype == tf.string else v[i].numpy().tolist()
                for name, v in outputs.items()
            }
            for i in range(len(images))
        ]
        return self.answer(200, {"predictions": rows})

    def image(self, image_bytes=None, images=None):
        return tf.constant(images, tf.uint8) if images else tf.constant(base64.b64decode(image_bytes["b64"]))

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Servers:
    """Both, on free ports of the loopback."""

    def __init__(self, unavailable=0):
        self.predictor = Predictor(unavailable)
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self.predictor, self.grpc)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.asked, self.http.unavailable = [], unavailable
        port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.addresses = {"grpc": f"127.0.0.1:{port}", "rest": f"127.0.0.1:{self.http.server_port}"}

    def __enter__(self):
        self.grpc.start()
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.grpc.stop(0).wait()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(scope="module")
def servers():
    with Servers() as both:
        yield both


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_both_protocols_give_the_networks_answers(protocol, servers):
    found = ask(TRANSPORTS[protocol](servers.addresses[protocol], "net"), FILES)
    logits = tiny_network()(PIXELS / np.float32(255), training=False).numpy()
    np.testing.assert_allclose([prediction.logits for prediction in found], logits, atol=1e-5)
    assert [prediction.class_id for prediction in found] == list(logits.argmax(-1))
    assert [prediction.class_name for prediction in found] == ["abcd"[k] for k in logits.argmax(-1)]
    np.testing.assert_allclose([p.probability for p in found], keras.ops.softmax(logits).numpy().max(-1), atol=1e-5)


def test_a_version_can_be_asked_for(servers):
    ask(Grpc(servers.addresses["grpc"], "net", 3), FILES)
    request = servers.predictor.asked[-1]
    assert (request.model_spec.name, request.model_spec.version.value) == ("net", 3)
    ask(Rest(servers.addresses["rest"], "net", 3), FILES)
    assert servers.http.asked[-1][0] == "/v1/models/net/versions/3:predict"


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_one_task_can_be_asked(protocol, servers):
    found = ask(TRANSPORTS[protocol](servers.addresses[protocol], "net", signature="task_1"), FILES)
    logits = tiny_network()(PIXELS / np.float32(255), training=False).numpy()[:, [3, 1]]
    np.testing.assert_allclose([prediction.logits for prediction in found], logits, atol=1e-5)
    assert [(p.class_id, p.class_name) for p in found] == [[(3, "d"), (1, "b")][k] for k in logits.argmax(-1)]
    np.testing.assert_allclose([p.probability for p in found], keras.ops.softmax(logits).numpy().max(-1), atol=1e-5)


@pytest.mark.parametrize("others", [[b"no image"], [FILES[0], tf.io.encode_png(PIXELS[0, :4]).numpy()]])
def test_a_task_takes_images_of_one_size(others):
    with pytest.raises(UserError, match="expected PNG or JPEG images of one size") as error:
        ask(TRANSPORTS["rest"]("127.0.0.1:9", "net", signature="task_1"), others)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_what_the_server_refuses_is_not_tried_again(protocol, servers):
    before = len(servers.predictor.asked) + len(servers.http.asked)
    with pytest.raises(UserError, match=r"(?s)the server refuses: .*expected a PNG or JPEG image"):
        ask(TRANSPORTS[protocol](servers.addresses[protocol], "net"), [b"no image"])
    assert len(servers.predictor.asked) + len(servers.http.asked) == before + 1


@pytest.mark.parametrize("address", [None, "localhost:abc", "local host:8501"])
def test_what_is_no_rest_port_is_one_line(address, servers):
    with pytest.raises(UserError, match=r"^http://.*: expected the REST port of a server, such as localhost:8501"):
        ask(Rest(address or servers.addresses["grpc"], "net"), FILES)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_server_that_is_starting_is_asked_again(protocol):
    with Servers(unavailable=2) as both:
        assert len(ask(TRANSPORTS[protocol](both.addresses[protocol], "net"), FILES)) == 3
        assert max(len(both.predictor.asked), len(both.http.asked)) == 3


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_without_a_server_the_deadline_ends_it(protocol):
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"expected an answer within 0\.5 s, received none"):
        ask(TRANSPORTS[protocol]("127.0.0.1:9", "net"), FILES, deadline=0.5)
    assert time.perf_counter() - start < 2


def test_pauses_grow_and_end_with_the_deadline():
    tries = []

    def transport(images, seconds):
        tries.append(seconds)
        raise Unavailable("no")

    with pytest.raises(UserError, match="within 1 s"):
        ask(transport, FILES, deadline=1.0)
    assert len(tries) == 4  # after 0, 0.1, 0.3 and 0.7 seconds
    assert tries == sorted(tries, reverse=True)


def test_no_images_need_no_server():
    assert ask(Rest("127.0.0.1:9", "net"), []) == []


def test_the_command_prints_a_line_an_image(servers, tmp_path):
    for number, content in enumerate(FILES):
        (tmp_path / f"{number}.png").write_bytes(content)
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    command = [sys.executable, "-m", "tools.serving_client", "--model=net"]
    flags = [f"--server={servers.addresses['grpc']}", "--deadline=30"]
    done = subprocess.run([*command, *flags, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert "0.png: class " in done.stdout
    done = subprocess.run([*command, "nothing.png"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: expected image files, received nothing.png.")


@pytest.mark.slow
def test_the_command_asks_the_signature_that_is_named(servers, tmp_path):
    (tmp_path / "0.png").write_bytes(FILES[0])
    command = [sys.executable, "-m", "tools.serving_client", "--model=net", "--signature=task_1", "--deadline=30"]
    command += [f"--server={servers.addresses['grpc']}", str(tmp_path / "0.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert re.search(r"0\.png: class (3 \(d\)|1 \(b\)), ", done.stdout), done.stderr


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>busy</html>", b"[]", b"{}", b'{"predictions": 3}', b'{"predictions": [{"x": 1}]}', b"\xff"],
)
def test_an_answer_of_another_form_is_one_line(content, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(content))
    with pytest.raises(UserError, match="expected logits, probabilities and class_ids for each image") as error:
        ask(TRANSPORTS["rest"]("x", "net"), [b"image"], deadline=5)
    assert "\n" not in str(error.value)
