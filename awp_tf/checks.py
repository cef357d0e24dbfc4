"""One-line errors for settings: what was expected, what was received, what to do."""

import numbers


class UserError(Exception):
    """A mistake that the person at the keyboard can repair; commands print it and exit with code 2."""


def positive(name: str, value: object, advice: str = "") -> None:
    """Raise UserError unless value, where it is a plain number, is > 0."""
    _require(not _number(value) or value > 0, name, "a number > 0", value, advice)  # type: ignore[operator]


def not_negative(name: str, value: object, advice: str = "") -> None:
    """Raise UserError unless value, where it is a plain number, is >= 0."""
    _require(not _number(value) or value >= 0, name, "a number >= 0", value, advice)  # type: ignore[operator]


def at_least(name: str, value: object, least: int) -> None:
    """Raise UserError unless value is a whole number >= least."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    _require(whole and value >= least, name, f"a whole number >= {least}", value)  # type: ignore[operator]


def fraction(name: str, value: object) -> None:
    """Raise UserError unless value, where it is a plain number, lies in [0, 1)."""
    _require(not _number(value) or 0 <= value < 1, name, "a number in [0, 1)", value)  # type: ignore[operator]


def _number(value: object) -> bool:
    """Schedules and tensors are numbers only once training runs, so they pass unchecked."""
    return isinstance(value, (numbers.Real, str)) or value is None


def _require(holds: object, name: str, expected: str, received: object, advice: str = "") -> None:
    if not holds:
        raise UserError(f"{name}: expected {expected}, received {received!r}. {advice}".rstrip())
