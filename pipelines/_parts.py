"""Parts of a person's own, made known by --import: networks, losses, attacks, data in a module or a .py file."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator, Sequence

from awp_tf.infra.errors import UserError

Parts = dict[str, str]


def load(names: Sequence[str]) -> list[types.ModuleType]:
    """The modules; a .py file is one of its stem's name.

    Raises:
        UserError: There is no such module or file, or it fails as it is imported.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:  # an installed command does not look here of itself
        sys.path.insert(0, os.getcwd())
    return [_load(name) for name in names]


def _load(name: str) -> types.ModuleType:
    try:
        return _load_file(pathlib.Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except Exception as error:  # whatever another person's code raises
        raise UserError(f"--import: expected a module or a .py file, received {name!r} ({error}).") from error


def _load_file(path: pathlib.Path) -> types.ModuleType:
    if path.stem in sys.modules:
        return sys.modules[path.stem]
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


def digests(modules: Iterable[types.ModuleType]) -> Parts:
    """SHA-256 of the source of each, by name: what a run keeps, and compares."""
    return {module.__name__: _digest(module) for module in modules}


def _digest(module: types.ModuleType) -> str:
    file = pathlib.Path(module.__file__ or "")
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    total = hashlib.sha256()
    for source in files:
        total.update(source.read_bytes())
    return total.hexdigest()


def public(module: types.ModuleType) -> Iterator[object]:
    """The classes and functions that a module defines itself, in their order."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        if own and not name.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield thing
