"""A network with a head for each task: signatures, parity, warm-up, card, and what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_network
from tensorflow_serving.apis import prediction_log_pb2

from awp_tf.export.export import export, write_card
from awp_tf.export.heads import Head, read_heads
from awp_tf.export.parity import differences
from awp_tf.export.settings import Export, Servable
from awp_tf.export.versions import WARMUP, write_warmup
from awp_tf.infra.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
NAMES = ["cat", "car", "dog", "bus"]
HEADS = [Head("task 1", (2, 0), ("dog", "cat")), Head("task 2: wheels", (1, 3))]


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "last.keras"
    tiny_network().save(path)
    return path


@pytest.fixture(scope="module")
def exported(keras_file, tmp_path_factory):
    servable = Servable("net", keras_file, IMAGES, NAMES, heads=HEADS)
    return export(servable, Export(batch_sizes=(1, 5)), str(tmp_path_factory.mktemp("serving")))


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


def all_logits():
    return tiny_network()(IMAGES / np.float32(255), training=False).numpy()


def test_a_task_answers_for_its_own_classes(loaded):
    answer = loaded.signatures["task_1"](images=tf.constant(IMAGES))
    logits = all_logits()[:, [2, 0]]
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-6)
    assert set(logits.argmax(-1)) == {0, 1}  # or the next lines would say little
    np.testing.assert_array_equal(answer["class_ids"], np.array([2, 0])[logits.argmax(-1)])
    assert [n.decode() for n in answer["class_names"].numpy()] == [["dog", "cat"][k] for k in logits.argmax(-1)]
    assert "class_names" not in loaded.signatures["task_2_wheels"](images=tf.constant(IMAGES))


def test_a_class_has_one_id_whichever_signature_is_asked(loaded):
    whole = loaded.signatures["serving_default"](images=tf.constant(IMAGES))
    ids = whole["class_ids"].numpy()
    np.testing.assert_array_equal(ids, all_logits().argmax(-1))
    assert whole["logits"].shape == (12, 4)
    for head in HEADS:
        own = np.isin(ids, head.classes)
        assert own.any()
        answer = loaded.signatures[head.signature](images=tf.constant(IMAGES[own]))
        np.testing.assert_array_equal(answer["class_ids"], ids[own])


def test_a_task_takes_what_the_whole_network_takes(loaded):
    task = loaded.signatures["task_1"]
    assert task(images=tf.zeros([0, 8, 8, 1], tf.uint8))["logits"].shape == (0, 2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        task(images=tf.zeros([1, 7, 8, 1], tf.uint8))


def test_the_card_names_tasks_their_signatures_and_how_near_they_are(exported):
    card = json.loads((exported / "assets.extra" / "robustness_card.json").read_text())["export"]
    assert card["parity"].keys() == {"serving_default", "serving_bytes", "task_1", "task_2_wheels"}
    assert max(card["parity"].values()) <= 1e-5
    first = {"name": "task 1", "signature": "task_1", "classes": [2, 0], "class_names": ["dog", "cat"]}
    assert card["heads"][0] == first
    page = (exported / "assets.extra" / "robustness_card.md").read_text()
    assert "| task 1 | task_1 | 2, 0 | dog, cat |" in page


@pytest.mark.parametrize(("heads", "said"), [(HEADS, 1), ([], 0)])
def test_an_evaluation_of_all_classes_is_not_taken_for_one_of_a_task(heads, said, keras_file, tmp_path, monkeypatch):
    monkeypatch.setattr("awp_tf.export.export.markdown", lambda card: "# Robustness\n")
    servable = Servable("net", keras_file, IMAGES, card={"network": {}}, heads=heads)
    write_card(tmp_path / "card", servable, {})
    page = (tmp_path / "card.md").read_text()
    assert page.count("## Tasks") == page.count("The evaluation above is that of all classes") == said


def test_warm_up_asks_every_task_at_every_batch_size(exported, loaded, tmp_path):
    seen = requests(exported)
    names = ["serving_default", "serving_bytes", "task_1", "task_2_wheels"]
    assert [(request.model_spec.signature_name, size) for request, size in seen] == [
        (name, size) for size in (1, 5) for name in names
    ]
    request = seen[-1][0]
    answer = loaded.signatures["task_2_wheels"](images=tf.constant(tf.make_ndarray(request.inputs["images"])))
    np.testing.assert_allclose(answer["logits"], all_logits()[:5, [1, 3]], atol=1e-5)
    write_warmup(tmp_path, "net", IMAGES[:1], [1] * 100, [f"task_{i}" for i in range(18)])
    assert len(requests(tmp_path)) == 1000  # TF Serving reads no more


def requests(folder):
    """(Request, its number of images) of the warm-up file."""
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(folder / WARMUP))]
    found = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    return [(each, next(iter(each.inputs.values())).tensor_shape.dim[0].size) for each in found]


@pytest.mark.parametrize(
    ("task", "classes", "near"),
    [
        ("task_1", [2, 0], True),
        ("task_1", [0, 2], False),  # in another order
        ("task_1", [2, 1], False),  # another class
        ("task_1", [2, 0, 1], False),
        ("task_3", [2, 0], False),  # there is no such signature
    ],
)
def test_a_task_that_answers_otherwise_is_found(task, classes, near, exported):
    heads = {head.signature: np.array(head.classes) for head in HEADS} | {task: np.array(classes)}
    found = differences(str(exported), IMAGES, all_logits(), heads)
    assert (found[task] <= 1e-5) == near
    assert max(difference for name, difference in found.items() if name != task) <= 1e-5


def test_heads_of_a_run_are_read_and_none_where_all_tasks_share_all_classes(tmp_path):
    assert read_heads(tmp_path / "heads.json") == []
    entries = [
        {"name": "task 1", "classes": [0, 1], "class_names": ["airplane", "automobile"]},
        {"name": "task 2", "classes": [2, 3], "class_names": []},
    ]
    (tmp_path / "heads.json").write_text(json.dumps(entries))
    assert read_heads(tmp_path / "heads.json") == [
        Head("task 1", (0, 1), ("airplane", "automobile")),
        Head("task 2", (2, 3)),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[{",
        "{}x",
        "3",
        '["task 1"]',
        '{"name": "task 1", "classes": [0]}',
        '[{"name": "task 1"}]',
        '[{"name": "task 1", "classes": 3}]',
        '[{"name": "task 1", "classes": [0.5]}]',
        '[{"name": "task 1", "classes": [0, 0]}]',
        '[{"name": "task 1", "classes": [0], "class_names": ["a", "b"]}]',
        '[{"name": "task 1", "classes": [0], "rows": 2}]',
    ],
)
def test_a_damaged_file_of_heads_is_one_line(content, tmp_path):
    (tmp_path / "heads.json").write_text(content)
    with pytest.raises(UserError, match=r"heads\.json: expected a list of heads with name, classes") as error:
        read_heads(tmp_path / "heads.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", "  ", "::", "serving_default", "serving bytes"])
def test_a_task_has_a_name_that_a_signature_can_have(name):
    with pytest.raises(UserError, match=r"Head\.name: expected a name with a letter or digit"):
        Head(name, (0,))


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([Head("task 1", (0, 4))], r"last\.keras: expected heads with classes below 4, received \[0, 4\] of task 1"),
        (
            [Head("task 1", (0,)), Head("task_1", (1,))],
            r"expected heads with names of their own, received task_1 twice",
        ),
    ],
)
def test_heads_have_to_fit_the_network(heads, message, keras_file, tmp_path):
    with pytest.raises(UserError, match=message):
        export(Servable("net", keras_file, IMAGES, heads=heads), Export(), str(tmp_path / "serving"))
    assert not (tmp_path / "serving").exists()
