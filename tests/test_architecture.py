"""The shape of the code: who may import whom, how long a file may be, and that each has its test."""

import ast
import functools
import graphlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("awp_tf", "pipelines", "tools", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in FILES if path.stem != "__init__"]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]

COMMANDS = ("training", "evaluation", "landscape", "export", "study", "continual")  # a folder for each of pipelines/
TENSORFLOW_ONLY = ("attacks", "perturbations", "methods", "threats", "losses", "transforms", "types")


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {dotted(path): path for path in FILES}


def imports(path):
    """Dotted names of the modules that a file imports, relative imports included."""
    package = dotted(path).split(".")[: None if path.stem == "__init__" else -1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            below = {f"{name}.{alias.name}" for alias in node.names}
            yield from below & set(KNOWN)
            if not below <= set(KNOWN):
                yield name


def room(name):
    """Of a dotted name: "infra", "library", one of COMMANDS, "outside" (the other folders), or None: not ours."""
    top, _, rest = name.partition(".")
    if top in FOLDERS[1:]:
        return "outside"
    if top != "awp_tf" or not rest:
        return None
    folder = rest.split(".")[0]
    if folder in ("infra", "types"):
        return "infra"
    return folder if folder in COMMANDS else "library"


def may_import(importer, imported):
    """The four sentences of docs/architecture.md."""
    if importer == "infra":  # infra and types import nothing of ours
        return imported == "infra"
    if importer == "library":  # the library imports those
        return imported in ("infra", "library")
    if importer in COMMANDS:  # a command's folder imports the library and evaluation, never another command's
        return imported in ("infra", "library", "evaluation", importer)
    return True  # pipelines, tools and examples import all


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_imports_follow_the_four_sentences(path):
    importer = room(dotted(path))
    for name in imports(path):
        if importer and room(name):
            assert may_import(importer, room(name)), f"{dotted(path)} imports {name}"


def test_the_four_sentences_forbid_something():
    assert not may_import("infra", "library")
    assert not may_import("library", "evaluation")
    assert not may_import("landscape", "export")
    assert not may_import("training", "outside")
    source = ROOT / "pipelines" / "evaluate.py"
    assert "pipelines._cli" in set(imports(source))  # from . import _cli


def test_no_two_modules_import_each_other():
    graph = {dotted(path): {name for name in imports(path) if name in KNOWN} for path in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_gin_is_known_at_the_edge_only(path):
    known = any(name.split(".")[0] == "gin" for name in imports(path))
    assert known == (path == ROOT / "pipelines" / "_cli.py")


def test_flags_are_named_in_commands_only():
    defined = set()
    for path in (ROOT / "pipelines").glob("*.py"):
        defined |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text()))
    assert {"workdir", "gin_file", "attacks"} <= defined
    for path in (ROOT / "awp_tf").rglob("*.py"):
        assert not defined & set(re.findall(r"--(\w+)", path.read_text())), path


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


PURE = [path for path in MODULES if any(name in (path.stem, path.parent.name) for name in TENSORFLOW_ONLY)]


@pytest.mark.parametrize("path", PURE, ids=lambda p: p.stem)
def test_the_parts_of_the_idea_need_tensorflow_alone(path):
    allowed = {"awp_tf", "tensorflow", "numpy"} | set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in imports(path)} <= allowed


LIGHT = """
import sys
import pipelines.train
# (Keras itself imports matplotlib, pillow and some of scikit-learn where they are.)
heavy = ("tensorflow_serving", "grpc", "sklearn.datasets", "tensorflow_datasets", "onnxruntime", "torch")
heavy += ("awp_tf.infra.figures", "awp_tf.export.versions")
print([name for name in heavy if name in sys.modules])
"""


def test_training_imports_nothing_that_it_may_not_need():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "[]\n", done.stderr[-2000:]


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= (330 if path in TESTS else 250)


@functools.cache
def known_imports(path):
    return {name for name in imports(path) if name in KNOWN}


text_of = functools.cache(pathlib.Path.read_text)


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_module_has_tests_beside_its_own(path):
    """In the folder of the same name a test imports it, or what imports it; for commands and tools, anywhere."""
    parts = path.relative_to(ROOT).parts
    folder = ROOT.joinpath("tests", *parts[1:-1])
    tests = list(folder.glob("test_*.py") if parts[0] == "awp_tf" else (ROOT / "tests").rglob("test_*.py"))
    imported = set().union(*map(known_imports, tests))
    reached = imported.union(*(known_imports(KNOWN[name]) for name in imported))
    started = any(dotted(path) in text_of(test) for test in tests)
    assert dotted(path) in reached or started, f"no test in {folder.relative_to(ROOT)} comes to {dotted(path)}"


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
