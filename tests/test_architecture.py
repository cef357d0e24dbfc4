"""The shape of the code: who may import whom, how long a file may be, and that each has its test."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

TENSORFLOW_ONLY = ("attacks", "perturbations", "methods", "threats", "losses")

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path for folder in ("awp_tf", "pipelines", "tools") for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in FILES if path.stem != "__init__"]
PURE = [path for path in MODULES if any(name in (path.stem, path.parent.name) for name in TENSORFLOW_ONLY)]
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]

# A module imports only from layers above its own.
LAYERS = [
    {"checks"},
    {"files"},
    {
        "provenance",
        "cpu",
        "random",
        "losses",
        "functional",
        "schedules",
        "interrupt",
        "console",
        "board",
        "networks.layers",
    },
    {
        "threats",
        "replicas",
        "checkpoints",
        "networks",
        "data.folders",
        "strategy",
        "data.sources",
        "data.tfds_reader",
        "data.augment",
    },
    {"examples", "attacks", "perturbations", "methods", "optimizers", "averaging", "data", "run_folder"},
    {"trainer", "evaluation"},
    {"loop", "recipe", "report", "output_folder"},
    {"robustness"},
    {"landscape", "export"},
    {"study"},
    {"experiment"},
]
# Modules tested together, or by another's test.
TESTED_IN = {
    "objectives": "test_pgd",
    "replicas": "test_trainer",
    "recipe": "test_experiment",
    "report": "test_experiment",
    "preact_resnet": "test_networks",
    "small_cnn": "test_networks",
    "wide_resnet": "test_networks",
    "windows": "test_square",
    "ledger": "test_assessment",
    "attack_pass": "test_assessment",
    "provenance": "test_evaluate",
    "awp_tf.evaluation.card": "test_evaluate",
    "awp_tf.evaluation.output": "test_evaluate",
    "awp_tf.evaluation.result": "test_evaluate",
    "awp_tf.export.card": "test_export",
    "awp_tf.landscape.result": "test_landscape",
    "pipelines.evaluate": "test_evaluate_command",
    "pipelines.export": "test_serving",
    "subject": "test_evaluate",
    "output_folder": "test_evaluate",
    "settings": "test_survey",
    "draw": "test_landscape",
    "meter": "test_landscape",
    "figures": "test_landscape",
    "plan": "test_study",
    "record": "test_study",
    "summary": "test_study",
    "worker": "test_study",
    "_flags": "test_flags",
    "serving_files": "test_export",
    "parity": "test_export",
    "onnx": "test_serving",
    "serving_client": "test_client",
    "serving_speed": "test_serving",
    "official_autoattack": "test_compare_autoattack",
    "torch_preact_resnet": "test_compare_autoattack",
    "_main": "test_main",
    "_quiet": "test_main",
    "_slips": "test_configuration",
    "_cli": "test_cli",
    "train": "test_cli",
}


def module_file(name):
    """Of a dotted name, or None."""
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in below if module_file(name)]
            yield from modules
            if len(modules) < len(below):
                yield node.module


def layer(name):
    """The layer of a dotted name inside awp_tf: its own entry, or that of its package."""
    for depth in (2, 1):
        short = ".".join(name.split(".")[:depth])
        for index, names in enumerate(LAYERS):
            if short in names:
                return index
    return None


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "awp_tf")], ids=lambda p: p.stem)
def test_imports_point_one_way(path):
    own = ".".join(path.relative_to(ROOT / "awp_tf").with_suffix("").parts)
    assert layer(own) is not None, f"{own} has no layer"
    for name in imports(path):
        if name.startswith("awp_tf."):
            other = name.removeprefix("awp_tf.")
            same_package = own.split(".")[0] == other.split(".")[0]
            assert same_package or layer(other) < layer(own), f"{own} imports {other}"
        assert name.split(".")[0] not in ("pipelines", "tools"), f"{own} imports {name}"


ALONE = """
import sys
import tensorflow, numpy
import keras  # TensorFlow's own

class Nothing:
    def find_spec(self, name, *_):
        if name.split(".")[0] not in ("awp_tf", *allowed) and name.split(".")[0] not in sys.stdlib_module_names:
            raise ImportError(name + " is not TensorFlow")

allowed = {name.split(".")[0] for name in sys.modules} - {"keras"}
for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
    del sys.modules[name]
sys.meta_path.insert(0, Nothing())
from awp_tf import attacks, losses, methods, perturbations, threats
from awp_tf import noise
x, y = tensorflow.random.uniform([4, 3, 3, 1]), tensorflow.constant([0, 1, 0, 1])
predict = lambda z: tensorflow.reshape(z, [-1, 9])[:, :2]
x_adv = attacks.PGD(threats.Linf(0.1))(methods.AT().objective(predict, x, y), x, noise.make_seed(0))
print(methods.AT().loss(predict, x, x_adv, y).shape[0])
"""


def test_the_parts_of_the_idea_work_where_there_is_tensorflow_alone():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "4\n", done.stderr[-2000:]


@pytest.mark.parametrize("path", PURE, ids=lambda p: p.stem)
def test_the_parts_of_the_idea_need_tensorflow_alone(path):
    allowed = {
        "awp_tf",
        "tensorflow",
        "numpy",
        "dataclasses",
        "functools",
        "math",
        "typing",
        "collections",
        "fractions",
        "re",
    }
    assert {name.split(".")[0] for name in imports(path)} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_gin_is_known_at_the_edge_only(path):
    assert ("gin" in imports(path)) == (path.stem == "_cli")


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").glob("*.py"))], ids=lambda p: p.stem)
def test_a_file_can_be_read_in_one_sitting(path):
    limit = 250 if "tests" not in path.parts else 330
    assert len(path.read_text().splitlines()) <= limit


def reached(names):
    """The project's modules that importing these comes to."""
    found, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if file and file not in found:
            found.add(file)
            waiting |= {*imports(file), name.rpartition(".")[0]} - {""}
    return found


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_module_has_its_test(path):
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    name = next((TESTED_IN[key] for key in (own, path.stem) if key in TESTED_IN), f"test_{path.stem}")
    test = ROOT / "tests" / f"{name}.py"
    said = set(re.findall(r"\b(?:awp_tf|pipelines|tools)(?:\.\w+)+", test.read_text()))  # commands in processes, too
    names = {*imports(test), *said}
    if name == f"test_{path.stem}":  # a test of its own imports it, or what its package makes of it
        defined = {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}
        used = set(re.findall(r"\w+", test.read_text()))
        assert own in names or defined & used, f"{name} uses nothing of {own}"
    else:
        assert path in reached(names), f"{name} does not come to {own}"


def test_functions_are_short():
    lengths = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lengths.append((sum(n.end_lineno - n.lineno + 1 for n in body), f"{path.stem}.{node.name}"))
    lengths.sort()
    assert lengths[len(lengths) // 2][0] <= 12
    assert lengths[-1][0] <= 45, lengths[-3:]
