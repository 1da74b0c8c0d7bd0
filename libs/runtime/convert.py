"""Text to the type a field asks for; nothing is guessed from how the text looks."""

import math
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from libs.runtime.secret import Secret

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_NONE = frozenset({"", "null", "~", "none"})


@dataclass(frozen=True, slots=True)
class Between:
    """Limits of a number, both included: `port: Annotated[int, Between(0, 65535)]`."""

    low: float
    high: float


def from_text(text: str, hint: Any) -> Any:
    """Convert text to a scalar type: str, int, float, bool, Path, Secret, Literal, `X | None`, Annotated with Between.

    Raises:
        ValueError: says what was expected; never contains a secret.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *limits = get_args(hint)
        value = from_text(text, inner)
        for limit in limits:
            _check_limit(value, limit)
        return value
    if origin in (Union, types.UnionType):
        inner = without_none(hint)
        return None if text.lower() in _NONE else from_text(text, inner)
    if origin is Literal:
        if text not in get_args(hint):
            raise ValueError(f"expected one of {', '.join(get_args(hint))}, got {text!r}")
        return text
    if hint not in _SCALARS:
        raise AssertionError(f"a settings field cannot have the type {hint!r}")
    return _SCALARS[hint](text)


def without_none(hint: Any) -> Any:
    """The X of `X | None`; any other hint unchanged."""
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        assert len(members) == 1, hint
        return members[0]
    return hint


def _check_limit(value: Any, limit: Any) -> None:
    if isinstance(limit, Between) and value is not None and not limit.low <= value <= limit.high:
        raise ValueError(f"expected {limit.low:g} to {limit.high:g}, got {value}")


def _whole(text: str) -> int:
    digits = text.strip()
    if not digits.removeprefix("-").replace("_", "").isdecimal():
        raise ValueError(f"expected a whole number, got {text!r}")
    return int(digits)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {text!r}")
    return number


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"expected true or false, got {text!r}")
    return word in _TRUE


_SCALARS: dict[Any, Any] = {
    str: str,
    int: _whole,
    float: _number,
    bool: _truth,
    Path: Path,
    Secret: Secret,
}
