"""Exported folders: signatures, encoded images, warm-up, card, parity, size."""

import json
import struct
import time
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from helpers import tiny_network
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from awp_tf.export.export import export, read_card
from awp_tf.export.settings import Export, Limits, Servable
from awp_tf.export.signatures import ServingModule
from awp_tf.export.versions import WARMUP, write_configs
from awp_tf.infra.errors import UserError
from awp_tf.networks import preact_resnet18
from awp_tf.networks.classifier import digest

NAMES = ["bird", "cat", "dog"]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)


def network():
    keras.utils.set_random_seed(0)
    return preact_resnet18(shape=(16, 16, 3), classes=3, width=4, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "net.keras"
    network().save(path)
    return path


@pytest.fixture(scope="module")
def exported(keras_file, tmp_path_factory):
    base = tmp_path_factory.mktemp("serving")
    servable = Servable("net", keras_file, IMAGES, NAMES)
    return export(servable, Export(batch_sizes=(1, 5), floats=True), str(base))


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported))
    found = dict(loaded.signatures)
    found["keep"] = loaded  # variables live as long as this object
    return found


def logits_of(images):
    return network()(images.astype(np.float32) / 255, training=False).numpy()


def encoded(images, encode=tf.io.encode_png):
    return tf.stack([encode(image) for image in images])


def test_every_signature_answers_as_the_network_does(signatures):
    answers = [
        signatures["serving_default"](images=tf.constant(IMAGES)),
        signatures["serving_bytes"](image_bytes=encoded(IMAGES)),
        signatures["serving_float"](images=tf.constant(IMAGES, tf.float32) / 255),
    ]
    expected = logits_of(IMAGES)
    for answer in answers:
        assert set(answer) == {"logits", "probabilities", "class_ids", "class_names"}
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)
        np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(expected), atol=1e-6)
        np.testing.assert_array_equal(answer["class_ids"], expected.argmax(-1))
        assert [name.decode() for name in answer["class_names"].numpy()] == [NAMES[k] for k in expected.argmax(-1)]


@pytest.mark.parametrize("shape", [(2, 15, 16, 3), (2, 16, 17, 3), (2, 16, 16, 1), (0, 4, 4, 3)])
def test_a_wrong_size_is_an_error_not_an_answer(shape, signatures):
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["serving_default"](images=tf.zeros(shape, tf.uint8))


def test_no_images_give_no_answers(signatures):
    assert signatures["serving_default"](images=tf.zeros([0, 16, 16, 3], tf.uint8))["logits"].shape == (0, 3)
    assert signatures["serving_bytes"](image_bytes=tf.zeros([0], tf.string))["class_ids"].shape == (0,)


def test_floats_outside_of_0_1_are_refused(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected values in \[0, 1\]"):
        signatures["serving_float"](images=tf.fill([1, 16, 16, 3], 255.0))


def test_encoded_images_of_any_size_and_kind(signatures):
    photo = tf.image.resize(tf.constant(IMAGES[0]), (40, 50)).numpy().astype(np.uint8)
    small = tf.cast(tf.round(tf.image.resize(photo, (16, 16), antialias=True)), tf.uint8).numpy()
    jpeg = tf.io.encode_jpeg(photo, quality=100)
    small_jpeg = tf.image.resize(tf.io.decode_jpeg(jpeg), (16, 16), antialias=True)
    grey = tf.io.encode_png(photo[..., :1])
    alpha = tf.io.encode_png(np.concatenate([photo, photo[..., :1]], -1))
    files = tf.stack([tf.io.encode_png(photo), jpeg, grey, alpha])
    answer = signatures["serving_bytes"](image_bytes=files)["logits"].numpy()
    np.testing.assert_allclose(answer[0], logits_of(small[None])[0], atol=1e-5)
    np.testing.assert_allclose(answer[0], answer[3], atol=1e-5)  # transparency is dropped
    np.testing.assert_allclose(answer[1], logits_of(np.round(small_jpeg)[None])[0], atol=1e-5)
    small_grey = tf.image.resize(np.repeat(photo[..., :1], 3, -1), (16, 16), antialias=True)
    np.testing.assert_allclose(answer[2], logits_of(np.round(small_grey)[None])[0], atol=1e-5)


def png_header(width, height):
    """A PNG that promises an image and has none."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk


def bomb(width, height):
    """A PNG of width x height black pixels, a thousandth of its size."""
    data = b"IDAT" + zlib.compress(b"\0" * ((3 * width + 1) * height), 9)
    chunks = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return png_header(width, height) + chunks + end


def decoy(content):
    """The same PNG, a chunk that tells of 8 x 8 pixels before its header."""
    chunk = b"aaAa" + struct.pack(">II", 8, 8)
    return content[:8] + struct.pack(">I", 8) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[8:]


IDS = "nothing gif bmp short png-cut jpeg-cut jpeg-head big huge minus bomb disguised-bomb 1x1 wide".split()  # noqa: SIM905
GOOD = tf.io.encode_png(IMAGES[0]).numpy()
JPEG = tf.io.encode_jpeg(np.tile(IMAGES[0], (8, 8, 1))).numpy()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a PNG or JPEG image"),
        (b"GIF89a" + GOOD, "expected a PNG or JPEG image"),
        (b"BM" + GOOD, "expected a PNG or JPEG image"),
        (GOOD[:12], "expected a whole PNG image"),
        (GOOD[:-40], "PNG|image"),
        (JPEG[: len(JPEG) // 2], "JPEG|image"),
        (JPEG[:6], "JPEG|image|sides"),
        (png_header(60_000, 60_000), "expected sides of 4 to 4096 pixels"),
        (png_header(2**31 - 1, 2**31 - 1), "expected sides of 4 to 4096 pixels"),
        (png_header(2**31 + 5, 2**32 - 1), "expected sides of 4 to 4096 pixels"),
        (bomb(5000, 5000), "expected sides of 4 to 4096 pixels"),
        (decoy(bomb(5000, 5000)), "expected a whole PNG image, its header first"),
        (tf.io.encode_png(np.zeros((1, 1, 3), np.uint8)).numpy(), "expected sides of 4 to 4096 pixels"),
        (tf.io.encode_jpeg(np.zeros((8, 20_000, 3), np.uint8)).numpy(), "expected sides of 4 to 4096 pixels"),
    ],
    ids=IDS,
)
def test_what_is_no_sound_image_is_refused_at_once(content, message, signatures):
    start = time.perf_counter()
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signatures["serving_bytes"](image_bytes=tf.constant([content]))
    assert time.perf_counter() - start < 2


def test_a_file_that_is_too_long_is_refused():
    served = ServingModule(network(), (), Limits(largest_file=100)).signatures(floats=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at most 100 bytes"):
        served["serving_bytes"](tf.constant([GOOD]))


def test_warm_up_asks_both_signatures_at_every_batch_size(exported, signatures):
    seen = []
    for record in tf.data.TFRecordDataset(str(exported / WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        values = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](**values)
        seen.append((request.model_spec.name, request.model_spec.signature_name, len(answer["logits"])))
    assert seen == [("net", name, size) for size in (1, 5) for name in ("serving_default", "serving_bytes")]


def test_the_graph_holds_the_weights_and_nothing_else(tmp_path):
    large = preact_resnet18(shape=(16, 16, 3), classes=3, width=16)  # beside it, names of variables weigh little
    served = ServingModule(large, NAMES, Limits())
    tf.saved_model.save(served.module, str(tmp_path), signatures=served.signatures(floats=True))
    weights = sum(np.asarray(w).nbytes for w in large.get_weights())
    stored = sum(file.stat().st_size for file in (tmp_path / "variables").glob("*.data*"))
    assert weights <= stored <= 1.02 * weights
    proto = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    operations = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    assert not {op for op in operations if "PyFunc" in op}
    shapes = dict(tf.train.list_variables(str(tmp_path / "variables" / "variables")))
    shapes.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert sorted(map(tuple, shapes.values())) == sorted(tuple(w.shape) for w in large.weights)


def test_what_was_exported_is_written_down_with_how_robust_it_is(exported, keras_file):
    card = json.loads((exported / "assets.extra" / "robustness_card.json").read_text())
    assert card["evaluated"] is False
    assert card["export"]["network_sha256"] == digest(keras_file)
    assert card["export"]["class_names"] == NAMES
    assert max(card["export"]["parity"].values()) <= 1e-5
    assert "**Not evaluated.**" in (exported / "assets.extra" / "robustness_card.md").read_text()


def test_examples_of_a_servers_configuration(exported):
    base = exported.parent.parent
    servers = text_format.Parse((base / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    listed = [(model.name, model.base_path, model.model_platform) for model in servers.model_config_list.config]
    assert listed == [("net", "/models/net", "tensorflow")]
    assert "allowed_batch_sizes { value: 5 }" in (base / "batching_parameters.txt").read_text()
    assert "prometheus" in (base / "monitoring.config").read_text()
    assert {path.name for path in base.iterdir()} == {
        *("net", "models.config", "batching_parameters.txt", "monitoring.config")
    }


def test_a_card_has_to_belong_to_the_network(tmp_path, keras_file):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"network": {"sha256": digest(keras_file)}}))
    assert read_card(path, keras_file)
    path.write_text(json.dumps({"network": {"sha256": "0"}}))
    with pytest.raises(UserError, match="received that of another network"):
        read_card(path, keras_file)
    path.write_text("{}")
    with pytest.raises(UserError, match="expected a robustness card"):
        read_card(path, keras_file)


def test_a_graph_that_answers_otherwise_is_not_exported(tmp_path, keras_file, monkeypatch):
    answer = ServingModule._answer

    def wrong(self, images):
        return {**answer(self, images), "logits": answer(self, images)["logits"] + 1e-3}

    monkeypatch.setattr(ServingModule, "_answer", wrong)
    with pytest.raises(UserError, match="expected the network's own answers"):
        export(Servable("net", keras_file, IMAGES), Export(), str(tmp_path / "serving"))
    assert not list((tmp_path / "serving").rglob("*"))


def test_images_and_names_have_to_fit(tmp_path, keras_file):
    for servable, message in (
        (
            Servable("net", keras_file, IMAGES[:, :8]),
            r"expected uint8 images .*, received uint8 \[8, 16, 3\]",
        ),
        (Servable("net", keras_file, IMAGES, ["a"]), "expected 3 class names, received 1"),
        (Servable("net", keras_file, IMAGES.astype(np.float32)), r"received float32 \[16, 16, 3\]"),
        (Servable("net", tmp_path / "no.keras", IMAGES), r"no\.keras cannot be read as a Keras network"),
    ):
        with pytest.raises(UserError, match=message):
            export(servable, Export(), str(tmp_path / "serving"))
    assert not (tmp_path / "serving").exists()


@pytest.mark.parametrize("name", ["1", "a/b", "../x", ".", "..", "", "/x"])
def test_a_model_has_a_plain_name(name, tmp_path, keras_file):
    with pytest.raises(UserError, match="model: expected a plain name, received"):
        Servable(name, keras_file, IMAGES)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"smallest_side": 0}, r"Limits\.smallest_side: expected a whole number >= 1"),
        ({"largest_side": 3}, "Limits: expected smallest_side <= largest_side"),
        ({"largest_file": 0}, r"Limits\.largest_file: expected a whole number >= 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits, message):
    with pytest.raises(UserError, match=message):
        Limits(**limits)


def test_code_in_a_network_file_is_not_run(tmp_path):
    inputs = keras.Input((16, 16, 3))
    code = keras.layers.Lambda(lambda x: tf.reduce_mean(x, [1, 2]))(inputs)
    keras.Model(inputs, keras.layers.Dense(3)(code)).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match="cannot be read as a Keras network"):
        export(Servable("net", tmp_path / "code.keras", IMAGES), Export(), str(tmp_path / "serving"))


def test_grey_networks_take_colour_images():
    served = ServingModule(tiny_network(), (), Limits()).signatures(floats=False)
    answer = served["serving_bytes"](encoded(IMAGES))
    assert answer["logits"].shape == (12, 4)


def test_a_servers_configuration_lists_models_and_nothing_else(tmp_path):
    for name in ("net/1", "other/12", "tmp", ".git/1", "notes/x", "net/later", "old/3/deeper"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("net/1", "other/12", "net/later", "old/3/deeper", "tmp"):
        (tmp_path / name / "saved_model.pb").touch()
    write_configs(tmp_path, [1])
    servers = text_format.Parse((tmp_path / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [model.name for model in servers.model_config_list.config] == ["net", "other"]
