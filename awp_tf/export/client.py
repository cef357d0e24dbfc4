"""Asks a TF Serving server about images: over gRPC, or with JSON over REST; with a deadline and retries.

Request and answer forms: TF Serving's PredictionService (predict.proto) and its REST API, "Predict".
"""

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from awp_tf.export.signatures import BYTES
from awp_tf.infra.errors import UserError, first_line, optional

_FIRST_PAUSE = 0.1  # seconds before the second try; doubled each time


class Prediction(NamedTuple):
    """What a server says of one image.

    Attributes:
        class_id: The likeliest class of those that were asked about; a number of the whole network.
        class_name: Its name; "" where the server does not know it.
        probability: Of that class, in 0..1.
        logits: Of all classes, or of those of a task.
    """

    class_id: int
    class_name: str
    probability: float
    logits: list[float]


class Unavailable(Exception):  # noqa: N818 (it is no error, yet)
    """The server cannot answer now; another try may succeed."""


class Transport(Protocol):
    """One request."""

    def __call__(self, images: Sequence[bytes], seconds: float) -> list[Prediction]:
        """Asks once.

        Args:
            images: Encoded, PNG or JPEG.
            seconds: Until the answer has to be there.

        Raises:
            Unavailable: No server, or it is overloaded or just starting.
            UserError: The server refuses the request.
        """
        ...


def ask(transport: Transport, images: Sequence[bytes], *, deadline: float = 10.0) -> list[Prediction]:
    """Asks until there is an answer; waits a little longer before each new try.

    Args:
        transport: How.
        images: Encoded, PNG or JPEG.
        deadline: Seconds for everything, retries included.

    Raises:
        UserError: The server refuses the request, or does not answer in time.
    """
    if not images:
        return []
    end, pause = time.monotonic() + deadline, _FIRST_PAUSE
    while True:
        try:
            return transport(images, end - time.monotonic())
        except Unavailable as error:
            if time.monotonic() + pause >= end:
                raise UserError(f"expected an answer within {deadline:g} s, received none; {error}") from error
        time.sleep(pause)
        pause *= 2


class Grpc:
    """PredictionService.Predict."""

    def __init__(self, address: str, model: str, version: int | None = None, signature: str = BYTES) -> None:
        """Connects with the first request.

        Args:
            address: For instance localhost:8500.
            model: The name it is served under.
            version: None is the one that the server thinks best.
            signature: serving_bytes, to which image files are sent as they are, or one that takes pixels, for
                instance task_1: then images have to be of the network's size and channels.

        Raises:
            UserError: The extra "serving" is not installed.
        """
        self._model, self._version, self._signature = model, version, signature
        self._grpc = optional("grpc", "serving")
        self._messages = optional("tensorflow_serving.apis.predict_pb2", "serving")
        service = optional("tensorflow_serving.apis.prediction_service_pb2_grpc", "serving")
        self._stub = service.PredictionServiceStub(self._grpc.insecure_channel(address))

    def __call__(self, images: Sequence[bytes], seconds: float) -> list[Prediction]:
        """See Transport."""
        request = self._messages.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = self._signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        if self._signature == BYTES:
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string))
        else:
            request.inputs["images"].CopyFrom(tf.make_tensor_proto(_pixels(images)))
        try:
            answer = self._stub.Predict(request, timeout=max(seconds, 0.001))
        except self._grpc.RpcError as error:
            passing = (self._grpc.StatusCode.UNAVAILABLE, self._grpc.StatusCode.RESOURCE_EXHAUSTED)
            text = f"{error.code().name}: {error.details()}"
            raise (
                Unavailable(text) if error.code() in passing else UserError(f"the server refuses: {text}")
            ) from error
        return _predictions(lambda: {name: tf.make_ndarray(value) for name, value in answer.outputs.items()})


class Rest:
    """POST /v1/models/<model>:predict with base64 images, or pixels."""

    def __init__(self, address: str, model: str, version: int | None = None, signature: str = BYTES) -> None:
        """See Grpc; the address is for instance localhost:8501."""
        place = f"/versions/{version}" if version is not None else ""
        self._signature = signature
        self._url = f"http://{address}/v1/models/{urllib.parse.quote(model)}{place}:predict"

    def __call__(self, images: Sequence[bytes], seconds: float) -> list[Prediction]:
        """See Transport."""
        instances: list[dict[str, object]] = (
            [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
            if self._signature == BYTES
            else [{"images": image.tolist()} for image in _pixels(images)]
        )
        body = json.dumps({"signature_name": self._signature, "instances": instances}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=max(seconds, 0.001)) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            text = f"{error.code}: {error.read().decode(errors='replace')[:500]}"
            raise (
                Unavailable(text) if error.code in (429, 503) else UserError(f"the server refuses: {text}")
            ) from error
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise Unavailable(str(error)) from error
        except http.client.HTTPException as error:
            raise UserError(
                f"{self._url}: expected the REST port of a server, such as localhost:8501, received {error!r}."
            ) from error

        def columns() -> dict[str, np.ndarray]:
            rows = json.loads(content)["predictions"]
            return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}

        return _predictions(columns)


TRANSPORTS: dict[str, Callable[..., Transport]] = {"grpc": Grpc, "rest": Rest}
# Where a server listens unless told otherwise.
SERVERS = {"grpc": "localhost:8500", "rest": "localhost:8501"}


def _pixels(images: Sequence[bytes]) -> np.ndarray:
    """uint8 [B, H, W, C] of files that have one size.

    Raises:
        UserError: They have not, or one is no image.
    """
    try:
        return np.stack([tf.io.decode_image(image, expand_animations=False).numpy() for image in images])
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        raise UserError(
            f"expected PNG or JPEG images of one size, that of the network, received others ({first_line(error)}); "
            f"resize them, or ask {BYTES}."
        ) from error


def _predictions(read: Callable[[], dict[str, np.ndarray]]) -> list[Prediction]:
    """One for each row of what a signature gives.

    Raises:
        UserError: The answer is of another form.
    """
    try:
        return _rows(read())
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"expected logits, probabilities and class_ids for each image, received another answer "
            f"({first_line(error)}); is it a model that pipelines.export wrote?"
        ) from error


def _rows(answer: dict[str, np.ndarray]) -> list[Prediction]:
    ids = answer["class_ids"] if answer else np.zeros(0, int)
    names = [tf.compat.as_text(name) for name in answer["class_names"]] if "class_names" in answer else [""] * len(ids)
    return [
        Prediction(
            int(k), names[row], float(max(answer["probabilities"][row])), [float(z) for z in answer["logits"][row]]
        )
        for row, k in enumerate(ids)
    ]
