"""What all commands share: the flags of a configuration, and gin, which is known here and nowhere else."""

import contextlib
import importlib.util  # noqa: F401  (gin 0.5 uses it without importing it)
import inspect
import logging
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import absl.flags
import gin

from awp_tf.infra.errors import UserError, first_line
from awp_tf.infra.run_folder import parts_of

from . import _parts
from ._configurable import CONFIGURABLE
from ._slips import ROOT, did_you_mean, explain, place, require_used

T = TypeVar("T")

# What a command wants, by what has to be bound.
_FIRST = {
    "train.recipe": "a recipe (try --gin_file=gin/trades_awp.gin)",
    "Continual.learner": "a recipe of continual learning (try --gin_file=gin/fs_dgpm.gin)",
    "Study.runs": "a study (try --gin_file=gin/studies/headline.gin)",
}

absl.flags.DEFINE_multi_string(
    "gin_file", [], "A configuration; may be repeated, later ones change earlier ones. Example: gin/trades_awp.gin"
)
absl.flags.DEFINE_multi_string(
    "gin_bindings", [], "One setting; may be repeated. Examples: EPOCHS=50, AWP.gamma=0.005, Linf.epsilon=\"'4/255'\""
)
absl.flags.DEFINE_multi_string(
    "import", [], "A module or .py file with networks, losses, attacks or data of your own; may be repeated."
)


def register() -> None:
    """Makes every configurable known to gin, once."""
    for thing in CONFIGURABLE:
        if thing.__name__ not in _known():
            gin.external_configurable(thing, thing.__name__)


def _known() -> set[str]:
    return {selector.split(".")[-1] for selector in gin.config._REGISTRY._selector_map}  # noqa: SLF001


def own_parts() -> _parts.Parts:
    """Makes known what --import names; returns digests by module.

    Raises:
        UserError: It cannot be imported, or one of its names is taken.
    """
    register()
    modules = _parts.load(absl.flags.FLAGS["import"].value)
    for module in modules:
        for thing in _parts.public(module):
            _register_own(module.__name__, thing)
    return _parts.digests(modules)


def import_flags() -> list[str]:
    """--import as it was given, for commands that are started by this one."""
    return [f"--import={name}" for name in absl.flags.FLAGS["import"].value]


def _register_own(module: str, thing: Any) -> None:
    """A part may carry @gin.configurable itself, and may have been made known before."""
    name = thing.__name__
    if name in _known() and module not in _modules_of(name):
        raise UserError(f"--import: {module}.{name}: expected a name that is not taken; choose another.")
    if name not in _known():
        gin.external_configurable(thing, name, module=module)


def _modules_of(name: str) -> set[str]:
    """The modules of the configurables of a name."""
    selectors = gin.config._REGISTRY._selector_map  # noqa: SLF001
    return {selector.rpartition(".")[0] for selector in selectors if selector.split(".")[-1] == name}


def parse(files: Sequence[str], bindings: Sequence[str], root: str = "train.recipe") -> str:
    """Parses files, then bindings.

    Args:
        files: Paths, relative to here or to the project.
        bindings: Texts such as "EPOCHS=50".
        root: What has to be bound for the files to be of the right kind.

    Returns:
        The resolved configuration, in a form that can be parsed again; it holds no import lines.

    Raises:
        UserError: A name is not known (the nearest is suggested), or the syntax is wrong.
    """
    own_parts()
    gin.clear_config()
    gin.add_config_file_search_path(str(ROOT))
    for file in files:
        _require_file(file)
    try:
        with _without_search_log():
            gin.parse_config_files_and_bindings(
                list(files), list(bindings), finalize_config=False, print_includes_and_imports=False
            )
    except (ValueError, AttributeError, TypeError, SyntaxError, OSError, RuntimeError, ImportError) as error:
        raise UserError(explain(error, bindings, _parameters())) from error
    text = gin.config_str(max_line_length=120)
    if "dynamic_registration" in text:
        raise UserError("--gin_file: expected no dynamic_registration; name your module by --import instead.")
    text = re.sub(r"^(import|from) .*\n+", "", text, flags=re.MULTILINE)
    if not place(rf"^{re.escape(root)}\s*=", files[:1], ()):
        raise UserError(f"--gin_file: expected {_FIRST[root]} first, then your other files.")
    require_used(text, files, bindings, root)
    return str(text)


def parse_run(folder: pathlib.Path, files: Sequence[str], bindings: Sequence[str]) -> str:
    """Parses the configuration that a run saved, then files and bindings that change it.

    A run's folder is data, perhaps another person's: nothing in it is imported.

    Raises:
        UserError: See parse; or the saved configuration would import or include something.
    """
    _require_parts(folder)
    saved = folder / "config.gin"
    try:
        statements = list(gin.config_parser.ConfigParser(saved.read_text(encoding="utf-8"), _Inert()))
    except (SyntaxError, ValueError, OSError) as error:
        raise UserError(f"{saved}: expected the settings of a run, which this is not ({first_line(error)}).") from error
    for statement in statements:
        if not isinstance(statement, gin.config_parser.BindingStatement):
            raise UserError(
                f"{saved}, line {statement.location.line_num}: expected settings only, received an import or "
                "an include, which would run another person's code. Name modules of your own by --import."
            )
    continual = place(r"^Continual\.learner\s*=", [str(saved)], ())
    return parse([str(saved), *files], bindings, root="Continual.learner" if continual else "train.recipe")


def _require_parts(folder: pathlib.Path) -> None:
    """A run's own parts are named by the person who reads it, never taken from its folder."""
    trained, given = parts_of(folder), own_parts()
    missing = [name for name in trained if name not in given]
    if missing:
        say = " and ".join(missing)
        raise UserError(f"{folder}: was trained with parts of one's own; expected --import with {say} (or a .py file).")
    for name in sorted(name for name in trained if trained[name] != given[name]):
        print(f"warning: {name} has changed since {folder} was trained.", file=sys.stderr)


class _Inert(gin.config_parser.ParserDelegate):
    """Reads a configuration without looking anything up."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> None:
        """Means nothing."""

    def macro(self, macro_name: str) -> None:
        """Means nothing."""


@contextlib.contextmanager
def _without_search_log() -> Iterator[None]:
    """Without a line of gin's for every place where a file is not."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def call(root: Callable[..., T], **arguments: object) -> T:
    """Calls a root function with what gin binds to it, and arguments.

    Raises:
        UserError: Something has no value, for instance the path of an image folder.
    """
    try:
        return gin.get_configurable(root.__name__)(**arguments)
    except TypeError as error:
        if not re.search(r"No values supplied by Gin|missing .*\n +In call to configurable", str(error)):
            raise
        say = "bind it in a gin file or with --gin_bindings, or name a network without brackets"
        raise UserError(f"{first_line(error)}; {say}.") from error


def default_workdir(files: Sequence[str]) -> str:
    """runs/<the names of the gin files>, so that the same command finds its run again."""
    return str(pathlib.Path("runs") / "+".join(pathlib.Path(file).stem for file in files))


def _require_file(file: str) -> None:
    if any((root / file).is_file() for root in (pathlib.Path(), ROOT)):
        return
    known = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "gin").rglob("*.gin"))]
    raise UserError(f"--gin_file: expected an existing file, received {file!r}.{did_you_mean(file, known)}")


def _parameters() -> dict[str, list[str]]:
    """The settings of all that is known, a person's own parts included, by name."""
    own = [thing for module in _parts.load(absl.flags.FLAGS["import"].value) for thing in _parts.public(module)]
    things = {name: [] for name in _known()} | {thing.__name__: thing for thing in (*CONFIGURABLE, *own)}
    return {name: list(inspect.signature(thing).parameters) if thing else [] for name, thing in things.items()}
