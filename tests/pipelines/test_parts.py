"""Parts of a person's own: what --import makes known."""

import sys
import uuid

import absl.flags
import pytest

from awp_tf.infra.errors import UserError
from pipelines import _cli, _parts

FLAGS = absl.flags.FLAGS

CODE = """
import enum
from awp_tf.methods import AT


def network_NAME(shape, classes):
    return None


class LossNAME(AT):
    pass


def _helper():
    return None


constant = 3
function = lambda: None


class Colour(enum.Enum):
    RED = 1
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / f"p{uuid.uuid4().hex}.py"
    path.write_text(CODE.replace("NAME", path.stem))  # gin forgets nothing
    yield path
    sys.modules.pop(path.stem, None)


def test_a_file_and_a_module_of_the_same_source_are_the_same(file, monkeypatch):
    (module,) = _parts.load([str(file)])
    assert [thing.__name__ for thing in _parts.public(module)] == [f"network_{file.stem}", f"Loss{file.stem}"]
    digests = _parts.digests([module])
    sys.modules.pop(file.stem)
    monkeypatch.syspath_prepend(file.parent)
    assert _parts.digests(_parts.load([file.stem])) == digests
    file.write_text(file.read_text() + "\n")
    assert _parts.digests([module]) != digests


def test_a_package_is_all_of_its_files(tmp_path, monkeypatch):
    name = f"p{uuid.uuid4().hex}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "loss.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    modules = _parts.load([name])
    before = _parts.digests(modules)
    (tmp_path / name / "loss.py").write_text("x = 2")
    assert _parts.digests(modules) != before


@pytest.mark.parametrize("code", ["import no_such_thing", "raise ValueError('no')", "def ("])
def test_what_cannot_be_imported_is_one_line(code, tmp_path):
    path = tmp_path / f"p{uuid.uuid4().hex}.py"
    path.write_text(code)
    for name in (str(path), str(tmp_path / "nothing.py"), "no_such_module_anywhere"):
        with pytest.raises(UserError, match=r"--import: expected a module or a \.py file, received"):
            _parts.load([name])
    assert path.stem not in sys.modules


def test_a_file_of_a_name_that_is_taken_is_not_another_module(tmp_path):
    for name in ("queue.py", "my-parts.py"):
        (tmp_path / name).write_text(CODE)
        with pytest.raises(UserError, match="is the name of another module, or none; rename the file"):
            _parts.load([str(tmp_path / name)])
    with pytest.raises(UserError, match="sys has no Python source"):
        _parts.load(["sys"])


def test_a_name_that_gin_or_another_module_has_is_refused(tmp_path):
    for code in ("def macro():\n    pass\n", "class PGD:\n    pass\n"):
        path = tmp_path / f"p{uuid.uuid4().hex}.py"
        path.write_text(code)
        FLAGS.set_default("import", [str(path)])
        with pytest.raises(UserError, match=rf"--import: {path.stem}\.\w+: expected a name that is not taken"):
            _cli.own_parts()
    FLAGS.set_default("import", [])


def test_parts_are_made_known_as_often_as_they_are_named(file):
    FLAGS.set_default("import", [str(file)])
    assert _cli.own_parts() == _cli.own_parts()
    FLAGS.set_default("import", [])
