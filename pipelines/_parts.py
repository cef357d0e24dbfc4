"""Parts of a person's own, made known by --import: networks, losses, attacks, data in a module or a .py file."""

import enum
import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from awp_tf.infra.errors import UserError
from awp_tf.infra.files import local
from awp_tf.infra.run_folder import Parts


def load(names: Sequence[str]) -> list[types.ModuleType]:
    """The modules; a .py file is one of its stem's name.

    Raises:
        UserError: There is no such module or file, or it fails as it is imported.
    """
    if names and "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where an installed command does not look of itself
    return [_load(name) for name in names]


def _load(name: str) -> types.ModuleType:
    try:
        module = _load_file(local(name).resolve()) if name.endswith(".py") else importlib.import_module(name)
        _files(module)
    except Exception as error:  # whatever another person's code raises
        raise UserError(f"--import: expected a module or a .py file, received {name!r} ({error}).") from error
    return module


def _load_file(path: pathlib.Path) -> types.ModuleType:
    there = sys.modules.get(path.stem)
    if there is not None and _files(there) == [path]:
        return there
    if there is not None or not path.stem.isidentifier():
        raise ImportError(f"{path.stem} is the name of another module, or none; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as import does, or what the file defines could not be found again by Keras
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _files(module: types.ModuleType) -> list[pathlib.Path]:
    """The source: a file, or all of a package."""
    name = getattr(module, "__file__", None)
    if not name or not name.endswith(".py"):
        raise ImportError(f"{module.__name__} has no Python source")
    file = pathlib.Path(name).resolve()
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]


def digests(modules: Iterable[types.ModuleType]) -> Parts:
    """SHA-256 of the source of each, by name: what a run keeps, and compares."""
    return {module.__name__: _digest(_files(module)) for module in modules}


def _digest(files: Sequence[pathlib.Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(files[0].parent)).encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def public(module: types.ModuleType) -> Iterator[Any]:
    """The classes and functions that a module defines itself by these names, in their order."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__ and getattr(thing, "__name__", None) == name
        kind = inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, enum.Enum))
        if own and kind and not name.startswith("_"):
            yield thing
