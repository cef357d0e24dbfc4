"""What the README and docs/serving.md promise, done as they say."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from awp_tf.attacks.autoattack import ATTACKS
from awp_tf.data import digits

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def run(*line, cwd):
    done = start(*line, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*line, cwd):
    done = start(*line, cwd=cwd)
    assert done.returncode == 2
    return done.stderr


def start(*line, cwd):
    return subprocess.run(
        [sys.executable, *map(str, line)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_every_file_that_the_readme_names_is_there():
    for name in re.findall(r"\]\(([^)#:]+)\)|(gin/[\w/]+\.gin)", README):
        assert (ROOT / "".join(name)).exists(), name


def test_the_readme_lists_the_attacks_that_there_are():
    row = next(line for line in README.splitlines() if line.startswith("| `--attacks` |"))
    listed = re.findall(r"`([\w-]+)`", row.split("|")[2])
    assert [name for name in listed if name != "attacks"] == list(ATTACKS)


def test_every_test_file_that_a_page_names_is_there():
    for page in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"tests/[\w/]+\.py", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_every_flag_that_the_readme_names_is_one():
    defined = set()
    for file in [*(ROOT / "pipelines").glob("*.py"), *(ROOT / "tools").glob("*.py")]:
        defined |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', file.read_text()))
    others = {"logdir", "help", "all", "dir", "enable_batching"}  # of TensorBoard, absl, Docker, TF Serving
    named = set(re.findall(r"--([a-z]\w+)", README + (ROOT / "docs" / "serving.md").read_text()))
    servers = {name for name in named if name.startswith(("model", "rest_", "port", "batching", "monitoring"))}
    assert named - defined - others - servers == set()


@pytest.mark.slow
def test_the_example_from_python_trains_a_robust_network(tmp_path):
    code = re.search(r"## From Python\n\n```python\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "example.py").write_text(code)
    printed = run("example.py", cwd=tmp_path).strip().splitlines()[-1]
    found = {name: float(value) for name, value in re.findall(r"'([\w-]+)': (?:np\.float64\()?([\d.]+)", printed)}
    assert found.keys() == {"clean", "PGD-10"}
    assert found["clean"] > 0.9
    assert 0.4 < found["PGD-10"] < found["clean"]


@pytest.mark.slow
def test_ones_own_images_train_and_are_evaluated(tmp_path, rng):
    for kind in ("rose", "tulip"):
        (tmp_path / "flowers" / kind).mkdir(parents=True)
        for number in range(50):
            pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "flowers" / kind / f"{number}.jpg")
    lines = re.search(r"## Your own images.*?```\n(.*?)```", README, re.DOTALL)[1].replace("\\\n", " ").splitlines()
    train, evaluate = ([part.replace("/data/flowers", "flowers") for part in shlex.split(line)[1:]] for line in lines)
    small = ["--gin_bindings=EPOCHS=1", "--gin_bindings=preact_resnet18.width=2"]
    assert "so of every class some are kept for the test: 20 images" in run(*train, *small, cwd=tmp_path)
    assert "worst case" in run(*evaluate, "--attacks=pgd-2", "--check_examples=10", cwd=tmp_path)


@pytest.mark.slow
def test_parts_of_ones_own_train_go_on_and_are_evaluated(tmp_path):
    section = README.split("## Parts of your own")[1].split("## From Python")[0]
    (tmp_path / "my_parts.py").write_text("\n\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL)))
    line = re.search(r"```\npython (-m pipelines\.train .*?)```", section, re.DOTALL)[1]
    command = [*shlex.split(line.replace("\\\n", " ")), "--gin_bindings=EPOCHS=3", "--gin_bindings=Data.validation=50"]
    assert "halves: 350 images" in run(*command, cwd=tmp_path)
    assert "MyMethod.pull = 2.0" in (tmp_path / "runs" / "mine" / "config.gin").read_text()
    few = ["--attacks=pgd-5", "--max_examples=20", "--check_examples=10"]
    evaluate = ["-m", "pipelines.evaluate", "--workdir=runs/mine", *few]
    assert "worst case" in run(*evaluate, "--import=my_parts.py", cwd=tmp_path)
    assert "expected --import with my_parts (or a .py file)" in refused(*evaluate, cwd=tmp_path)
    slip = [each.replace("MyMethod.pull", "MyMethod.pul") for each in command]
    assert "Did you mean 'pull'?" in refused(*slip, cwd=tmp_path)
    with (tmp_path / "my_parts.py").open("a") as file:
        file.write("# other code\n")
    assert "holds a run of another import" in refused(*command, cwd=tmp_path)


@pytest.mark.slow
def test_a_run_in_bfloat16_is_evaluated_exported_and_answers_as_it_was_evaluated(tmp_path):
    recipe = ["--gin_file=gin/trades_awp.gin", "--gin_file=gin/digits.gin", "--gin_bindings=EPOCHS=4"]
    precision = "--gin_bindings=Recipe.precision='mixed_bfloat16'"
    run("-m", "pipelines.train", *recipe, precision, "--workdir=run", cwd=tmp_path)
    few = ["--attacks=pgd-10", "--max_examples=100", "--check_examples=20"]
    run("-m", "pipelines.evaluate", "--workdir=run", *few, cwd=tmp_path)
    assert "with its robustness card" in run("-m", "pipelines.export", "--workdir=run", cwd=tmp_path)
    network = keras.models.load_model(tmp_path / "run" / "best.keras")
    assert "bfloat16" in {layer.compute_dtype for layer in network.layers}
    exported = tmp_path / "serving" / "run" / "1"
    pixels = np.round(digits().test.images * 255).astype(np.uint8)
    served = tf.saved_model.load(str(exported)).signatures["serving_default"](images=tf.constant(pixels))
    logits = network(pixels / np.float32(255), training=False).numpy()
    difference = np.abs(served["logits"].numpy() - logits) / np.maximum(1, np.abs(logits))
    assert difference.max() <= 2e-2
    card = json.loads((exported / "assets.extra" / "robustness_card.json").read_text())
    assert max(card["export"]["parity"].values()) <= 2e-2
    right = float(np.mean(served["class_ids"].numpy() == digits().test.labels))
    assert right == pytest.approx(
        json.loads((tmp_path / "run" / "result.json").read_text())["best"]["test_clean"], abs=0.01
    )


def test_the_guide_to_any_model_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "any_model.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert type(keras.models.load_model("model.keras")) is keras.Sequential
    names["on_words"].compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    names["on_words"].fit(np.ones([4, 16], "int32"), np.ones([4]), verbose=0)
