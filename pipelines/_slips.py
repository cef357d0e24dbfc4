"""Typing errors: what gin says of them, in a line with the nearest name; and those that it lets pass."""

import collections
import difflib
import pathlib
import re
from collections.abc import Mapping, Sequence

from awp_tf.infra.errors import UserError, first_line

_LATER = ("Measurement", "Protocol", "Landscape", "Export", "Limits")  # of any run
# What commands call without a reference, by what a recipe binds that is theirs.
_CALLED = {
    "train.recipe": ("train", "Recipe", "Data", *_LATER),
    "Continual.learner": ("Continual", "Learner", *_LATER),
    "Study.runs": ("Study",),
}
_OF_DATA = {"shape": "a network's shape comes", "classes": "a network's classes come"}  # what networks are called with
_STRING = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""")  # a path may have a % in it
_INCLUDE = re.compile(r"""^\s*include\s+(['"])(.+?)\1""", re.MULTILINE)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def require_used(text: str, files: Sequence[str], bindings: Sequence[str], root: str) -> None:
    """Raises UserError where a macro, a scope or a setting of a resolved configuration is used by nothing.

    Args:
        text: The configuration.
        files: What it was made of, for the place of the slip.
        bindings: Likewise.
        root: Of which kind it is: "train.recipe", "Continual.learner" or "Study.runs".
    """
    bare = _STRING.sub("''", re.sub(r"^#.*$", "", text, flags=re.MULTILINE))
    used = _used(bare, _CALLED[root])
    _require_macros(bare, used, files, bindings)
    _require_scopes(bare, files, bindings)
    _require_not_overridden(bare, files, bindings)
    _require_called(bare, used, bindings)


def _used(text: str, called: Sequence[str]) -> dict[str, set[str]]:
    """Parts ("@", with their scopes) and macros ("%") to which references lead from what a command calls."""
    mentioned: dict[str, list[str]] = collections.defaultdict(list)
    for statement in re.split(r"\n(?=\S)", text):
        name = re.split(r"\s*=", statement, maxsplit=1)[0].split("/")[-1]
        owner = f"@{name.split('.')[-2]}" if "." in name else f"%{name}"
        mentioned[owner] += map("".join, re.findall(r"([@%](?:\w+/)*)(?:\w+\.)*(\w+)", statement))
    found: set[str] = set()
    ahead = [f"@{name}" for name in called]
    while ahead:
        each = ahead.pop()
        if each not in found:
            found.add(each)
            ahead += mentioned[each[0] + each[1:].split("/")[-1]]
    return {kind: {each[1:] for each in found if each[0] == kind} for kind in "@%"}


def _require_macros(text: str, used: Mapping[str, set[str]], files: Sequence[str], bindings: Sequence[str]) -> None:
    """Files may bind what only parts use that others took the place of; a person's binding would change nothing."""
    bound = re.findall(r"^(\w+) *=", text, re.MULTILINE)
    for name in sorted(used["%"] - set(bound)):
        where = place(rf"%{name}\b", files, bindings)
        raise UserError(f"%{name}: no file gives this macro a value.{did_you_mean(name, bound)} ({where})")
    for name in sorted(set(bound) - used["%"]):
        assigned = rf"^\s*{name}\s*="
        elsewhere = place(rf"%{name}\b", files, ())
        if elsewhere and not place(assigned, (), bindings):
            continue
        near = "" if elsewhere else did_you_mean(name.upper(), sorted(used["%"]))
        where = place(assigned, files, bindings)
        raise UserError(f"{name}: nothing in this recipe uses a macro of this name.{near} ({where})")


def _require_scopes(text: str, files: Sequence[str], bindings: Sequence[str]) -> None:
    bound = set(re.findall(r"^(\w+)/[\w.]+ *=", text, re.MULTILINE))
    used = set(re.findall(r"@(\w+)/", text))
    for scope in sorted(bound - used):
        if place(rf"@{scope}/", files, ()):
            continue
        where = place(rf"^\s*{scope}/", files, bindings)
        raise UserError(f"{scope}/: nothing is of this scope.{did_you_mean(scope, sorted(used))} ({where})")


def _require_not_overridden(text: str, files: Sequence[str], bindings: Sequence[str]) -> None:
    """What a person binds without a scope, where everything of that name has one and a value of its own there.

    The first file is a recipe, or a run's own configuration, in which later files may have done that on purpose.
    """
    for name, parameter in re.findall(r"^(\w+)\.(\w+) *=", text, re.MULTILINE):
        where = place(rf"^\s*{name}\.{parameter}\s*=", files[1:], bindings)
        scopes = set(re.findall(rf"@(?:(\w+)/)?{name}\b", text))
        own = rf"/{name}\.{parameter} *="
        there = [scope for scope in sorted(scopes) if re.search(f"^{scope}{own}", text, re.MULTILINE)]
        if where and there and len(there) == len(scopes):
            say = ", ".join(f"{scope}/{name}.{parameter}" for scope in there)
            raise UserError(f"{name}.{parameter}: changes nothing; say which is meant: {say} ({where})")


def _require_called(text: str, used: Mapping[str, set[str]], bindings: Sequence[str]) -> None:
    """What a person binds of a part that their recipe does not have; files may bind for recipes that do."""
    parts = {name.split("/")[-1] for name in used["@"]}
    networks = set(re.findall(r"^(?:NETWORK|\w+\.network) *=\s*@(?:\w+\.)*(\w+)", text, re.MULTILINE))
    for binding in bindings:
        bound = re.match(r"\s*((?:\w+/)*)(?:\w+\.)*?(\w+)\.(\w+)\s*=", binding)
        if not bound:
            continue
        scope, part, setting = bound.groups()
        why = ""
        if part not in parts:
            why = f"no part of this recipe is {part}.{did_you_mean(part, sorted(parts))}"
        elif scope and not {part, scope + part} & used["@"]:  # what has no scope may be called where one holds
            why = f"no part of this recipe is {scope}{part}."
        elif part in networks and setting in _OF_DATA:
            why = f"{_OF_DATA[setting]} from the data."
        if why:
            raise UserError(f"{scope}{part}.{setting}: changes nothing, since {why} (in --gin_bindings={binding})")


def place(pattern: str, files: Sequence[str], bindings: Sequence[str]) -> str:
    """Where a pattern stands: a binding, or file and line, included files too; empty where nowhere."""
    for binding in bindings:
        if re.search(pattern, binding):
            return f"in --gin_bindings={binding}"
    for file in files:
        text = next(root / file for root in (pathlib.Path(), ROOT) if (root / file).is_file()).read_text("utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(pattern, line):
                return f'in file "{file}", line {number}'
        below = place(pattern, [name for _, name in _INCLUDE.findall(text)], ())
        if below:
            return below
    return ""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The nearest name, as a sentence; empty where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _say_of_syntax(said: str, parts: Sequence[str]) -> str:
    """What gin says of a value that is none, with the way to write it."""
    bare = re.search(r"Failed to parse token '(.+)'", said)
    if bare and bare[1] in parts:
        return f"expected a value, received {bare[1]}; a part is written @{bare[1]}(), and a network @{bare[1]}."
    if bare:
        text = "a text stands in quotes (of two kinds for a shell: \"PATH='flowers'\")"
        return f"expected a value, received {bare[1]}; {text}, a part begins with @."
    if "Expected newline" in said:
        fraction = "a fraction is a text (\"Linf.epsilon='8/255'\")"
        return f"expected one value; {fraction}, and each setting stands alone."
    return said


def explain(error: Exception, bindings: Sequence[str], parameters: Mapping[str, Sequence[str]]) -> str:
    """The first line of gin's error, the place it names, and the nearest name that exists.

    Args:
        error: What gin raised.
        bindings: As they were given.
        parameters: Of everything that is known, by name.
    """
    if isinstance(error, SyntaxError):
        line = min(error.lineno or 1, max(len(bindings), 1))
        where = f'file "{error.filename}", line {error.lineno}' if error.filename else "--gin_bindings="
        say = _say_of_syntax(error.msg, sorted(parameters))
        return f"{say} (in {where}{'' if error.filename else bindings[line - 1]})"
    text = str(error)
    where_found = re.search(r"In (?:file|bindings string)[^\n]*?line \d+|In bindings string", text)
    parameter = re.search(r"Configurable '([\w./]+)' doesn't have a parameter named '(\w+)'", text)
    missing = re.search(r"No configurable matching (?:reference '@|')([\w./]+)", text)
    hint = ""
    if parameter:
        name = parameter[1].split("/")[-1].split(".")[-1]
        hint = did_you_mean(parameter[2], parameters.get(name, []))
    elif missing:
        hint = did_you_mean(missing[1].split("/")[-1], sorted(parameters))
        hint = hint or " A part of your own is made known by --import=<its module>."
    return f"{first_line(error)}{hint}{f' ({where_found[0]})' if where_found else ''}"
