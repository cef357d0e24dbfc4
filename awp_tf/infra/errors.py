"""One-line errors for settings: what was expected, what was received, what to do."""

import difflib
import importlib
import itertools
import numbers
import re
from collections.abc import Collection
from typing import Any

_LONG, _BEFORE = 120, 40  # characters of a line that is quoted, and of those before a difference


class UserError(ValueError):
    """A mistake that the person at the keyboard can repair; commands print it and exit with code 2."""


def positive(name: str, value: object, advice: str = "") -> None:
    """Raises UserError unless value is a number > 0 (or a schedule or tensor, known only later)."""
    _require(_unknown_yet(value) or (_real(value) and value > 0), name, "a number > 0", value, advice)  # type: ignore[operator]


def not_negative(name: str, value: object, advice: str = "") -> None:
    """Raises UserError unless value is a number >= 0 (or a schedule or tensor, known only later)."""
    _require(_unknown_yet(value) or (_real(value) and value >= 0), name, "a number >= 0", value, advice)  # type: ignore[operator]


def at_least(name: str, value: object, least: int) -> None:
    """Raises UserError unless value is a whole number >= least."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    _require(whole and value >= least, name, f"a whole number >= {least}", value)  # type: ignore[operator]


def whole_seed(name: str, value: object) -> None:
    """Raises UserError unless value is a whole number that NumPy and Keras take for a seed."""
    at_least(name, value, 0)
    _require(value < 2**32, name, "a whole number below 2**32", value)  # type: ignore[operator]


def fixed(name: str, value: object, advice: str = "") -> None:
    """Raises UserError where value is a schedule or a tensor."""
    _require(_real(value), name, "a number that stays as it is", value, advice)


def fraction(name: str, value: object) -> None:
    """Raises UserError unless value is a number in [0, 1)."""
    _require(_real(value) and 0 <= value < 1, name, "a number in [0, 1)", value)  # type: ignore[operator]


def share(name: str, value: object) -> None:
    """Raises UserError unless value is a number in (0, 1)."""
    _require(_real(value) and 0 < value < 1, name, "a number in (0, 1)", value)  # type: ignore[operator]


def one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raises UserError unless value is one of known; the nearest is suggested."""
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else ""
    _require(value in known, name, f"one of {', '.join(known)}", value, hint)


def of_assertion(error: Exception) -> UserError | None:
    """What tf.debugging.Assert found, in the words it was given; None for an error of another kind."""
    found = re.search(r"assertion failed: (.*)", str(error))
    parts = re.findall(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]", found[1].split("\t [[")[0]) if found else []
    return UserError(" ".join(parts)) if parts else None


def of_python(error: Exception) -> UserError | None:
    """The UserError that a Python function inside a graph raised, as it was said; None for an error of another kind."""
    found = re.search(r"\bUserError: (.*)$", str(error), re.MULTILINE)
    return UserError(found[1]) if found else None


def optional(module: str, extra: str) -> Any:
    """A module that comes with one of the project's extras, imported where it is used.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"expected the extra {extra!r} ({error}); in the project's folder: pip install '.[{extra}]'."
        ) from error


def first_line(error: Exception, most: int | None = 300) -> str:
    """What an error says, without what is added below it; at most so many characters of another library's."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def first_difference(one: str, other: str) -> tuple[str, str]:
    """The first line in which two texts differ, of each; two empty ones where none does. Of long lines, the place."""
    pairs = itertools.zip_longest(one.splitlines(), other.splitlines(), fillvalue="(nothing)")
    lines = next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", ""))
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*lines, strict=False)))
    start = max(0, same - _BEFORE) if max(map(len, lines)) > _LONG else 0
    a, b = (f"{'...' if start else ''}{t[start : start + _LONG]}{'...' if t[start + _LONG :] else ''}" for t in lines)
    return a, b


def _real(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _unknown_yet(value: object) -> bool:
    return callable(value) or (hasattr(value, "dtype") and not isinstance(value, numbers.Real))


def _require(holds: object, name: str, expected: str, received: object, advice: str = "") -> None:
    if not holds:
        raise UserError(f"{name}: expected {expected}, received {received!r}. {advice}".rstrip())
