"""Parts of a person's own: what --import makes known."""

import sys
import uuid

import pytest

from awp_tf.infra.errors import UserError
from pipelines import _parts

CODE = """
import dataclasses
from awp_tf.methods import AT


def network(shape, classes):
    return None


class Loss(AT):
    pass


def _helper():
    return None


constant = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / f"p{uuid.uuid4().hex}.py"
    path.write_text(CODE)
    yield path
    sys.modules.pop(path.stem, None)


def test_a_file_and_a_module_of_the_same_source_are_the_same(file, monkeypatch):
    (module,) = _parts.load([str(file)])
    assert [thing.__name__ for thing in _parts.public(module)] == ["network", "Loss"]
    digests = _parts.digests([module])
    sys.modules.pop(file.stem)
    monkeypatch.syspath_prepend(file.parent)
    assert _parts.digests(_parts.load([file.stem])) == digests
    file.write_text(CODE + "\n")
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
