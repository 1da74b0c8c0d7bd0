"""Entries of a script (or of a form) read into faults, and faults written as entries. Pure.

An entry is a mapping: `fault` names the kind, the other keys are the fields of that kind. Values may be texts, as a form
or a YAML file has them. Everything wrong with an entry is said at once, each line with its field and what to do.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from libs.runtime.convert import Between, from_text, without_none
from services.simulator.faults.menu import EVERYONE, KINDS, Fault, On
from services.simulator.subscription import CHANNELS


class FaultInvalid(ValueError):
    """A fault cannot be: every line says which field and what to do instead."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


def read_entry(entry: object) -> Fault:
    """Read one entry.

    Raises:
        FaultInvalid: it names no kind, or fields are unknown, missing or impossible.
    """
    if not isinstance(entry, Mapping):
        raise FaultInvalid(["expected a mapping such as {fault: drop, on: {zone: a}, for_s: 5}"])
    name = entry.get("fault")
    cls = KINDS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise FaultInvalid([f"fault: no kind {name!r}; {_nearest(str(name), KINDS)}"])
    reader = _Reader()
    given = {str(key): value for key, value in entry.items() if key != "fault"}
    values = reader.fields(cls, given, "")
    if not reader.faults:
        fault = cls(**values)
        reader.faults += [*_common(cls, fault), *fault.check()]
        if not reader.faults:
            return fault
    raise FaultInvalid(reader.faults)


def write_entry(fault: Fault) -> dict[str, Any]:
    """Return the entry that reads as this fault: what is not at its default."""
    entry: dict[str, Any] = {"fault": fault.kind}
    for field in dataclasses.fields(fault):
        value = getattr(fault, field.name)
        if field.name == "on":
            on = {name: setting for name, setting in dataclasses.asdict(value).items() if setting}
            entry |= {"on": on} if on else {}
        elif value != field.default:
            entry[field.name] = value
    return entry


def describe_menu() -> list[dict[str, Any]]:
    """Return the menu for a person or a form: every kind, what it does, its fields with type and default."""
    return [
        {
            "fault": name,
            "does": " ".join((cls.__doc__ or "").split()),
            "duration": cls.duration,
            "on": sorted(cls.aims),
            "fields": [_describe_field(cls, field) for field in _own_fields(cls)],
        }
        for name, cls in KINDS.items()
    ]


class _Reader:
    """Reads fields by their types; keeps what is wrong."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fields(self, cls: type[Any], given: Mapping[str, object], path: str) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in sorted(given.keys() - fields.keys()):
            self.faults.append(f"{path}{name}: unknown field; {_nearest(name, fields)}")
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if given.get(name) is not None:
                values[name] = self._value(hints[name], given[name], f"{path}{name}")
            elif field.default is dataclasses.MISSING:
                self.faults.append(f"{path}{name}: missing; say it")
        return values

    def _value(self, hint: Any, value: object, path: str) -> Any:
        if hint is On:
            if not isinstance(value, Mapping):
                self.faults.append(
                    f"{path}: expected a mapping such as {{zone: a, channel: trade}}"
                )
                return EVERYONE
            on = On(**self.fields(On, {str(k): v for k, v in value.items()}, "on."))
            if on.channel and on.channel not in CHANNELS:
                self.faults.append(
                    f"on.channel: no channel {on.channel!r}; {_nearest(on.channel, CHANNELS)}"
                )
            return on
        if isinstance(value, Mapping | list):
            self.faults.append(f"{path}: expected one value")
            return None
        try:
            return from_text(str(value), hint)
        except ValueError as error:
            self.faults.append(f"{path}: {error}")
            return None


def _common(cls: type[Fault], fault: Fault) -> Iterable[str]:
    """Say which of the common fields this kind has no use for."""
    for name, value in dataclasses.asdict(fault.on).items():
        if value and name not in cls.aims:
            allowed = (
                f"only {', '.join(sorted(cls.aims))} can be named"
                if cls.aims
                else "it hits everyone"
            )
            yield f"on.{name}: leave it out of {cls.kind}; {allowed}"
    for name in ("share", "count_max"):
        if name not in cls.counts and getattr(fault, name) != _default(name):
            yield f"{name}: leave it out, {cls.kind} does not count frames"
    if cls.duration == "lasting" and not fault.for_s:
        yield f"for_s: say how many seconds {cls.kind} lasts, more than 0"
    if cls.duration == "once" and fault.for_s:
        yield f"for_s: leave it out, {cls.kind} happens once"


def _default(name: str) -> object:
    return next(field.default for field in dataclasses.fields(Fault) if field.name == name)


def _own_fields(cls: type[Fault]) -> list[dataclasses.Field[Any]]:
    common = {field.name for field in dataclasses.fields(Fault)}
    return [
        field
        for field in dataclasses.fields(cls)
        if field.name not in common or field.name in cls.counts
    ]


def _describe_field(cls: type[Fault], field: dataclasses.Field[Any]) -> dict[str, Any]:
    hint = without_none(get_type_hints(cls, include_extras=True)[field.name])
    described: dict[str, Any] = {"name": field.name}
    if get_origin(hint) is Annotated:
        hint, *limits = get_args(hint)
        for limit in limits:
            assert isinstance(limit, Between)
            described |= {"low": limit.low, "high": limit.high}
    if get_origin(hint) is Literal:
        described |= {"type": "choice", "choices": list(get_args(hint))}
    else:
        described["type"] = hint.__name__
    is_needed = field.default is dataclasses.MISSING
    return described | ({"needed": True} if is_needed else {"default": field.default})


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
