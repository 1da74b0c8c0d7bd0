"""Configuration, read once into frozen dataclasses: typed, complete, or refused with every fault at once.

A settings class is a frozen dataclass of scalars, tuples and further such classes. A field may carry limits
(`Annotated[int, Between(1, 9)]`), and a class may have `check(self) -> Iterable[str]` for what spans fields; each string
it yields begins with the field's name. Services never read a variable or a file of settings anywhere else.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin, get_type_hints

from libs.runtime import layers as sources_of
from libs.runtime.convert import Between, from_text, without_none
from libs.runtime.errors import ConfigInvalid
from libs.runtime.layers import RANK_DOTENV, RANK_ENVIRONMENT, RANK_FILE, Layers
from libs.runtime.secret import HIDDEN, FileText, OrFile, Secret
from libs.runtime.sections import PLATFORM_SECTIONS

__all__ = ["Between", "ConfigInvalid", "Loaded", "Secret", "describe", "load_settings"]

T = TypeVar("T")
_DEFAULT = "default"
_ABSENT: Any = dataclasses.MISSING


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Settings and where each value came from.

    Attributes:
        value: the settings.
        sources: dotted key -> "default", "file NAME", ".env NAME" or "environment NAME", for every leaf.
    """

    value: T
    sources: Mapping[str, str]


class _Checked(Protocol):
    def check(self) -> Iterable[str]: ...


def load_settings(
    cls: type[T],
    config_file: Path | None,
    environ: Mapping[str, str] | None = None,
    *,
    foreign: frozenset[str] = frozenset(),
) -> Loaded[T]:
    """Read the file, `.env` and the environment into `cls`.

    Args:
        config_file: YAML with `${VAR}` and `${VAR:-default}`; None: environment and defaults only.
        environ: the variables to read; None: the process's own, over those of a `.env` in the working directory.
        foreign: sections of the file that belong to other services; a section `cls` has itself is not foreign.
            Variables may name any section of the platform, because one `.env` serves all of its processes.

    Raises:
        ConfigInvalid: with all faults.
    """
    dotenv = sources_of.read_dotenv(Path(".env")) if environ is None else {}
    environ = os.environ if environ is None else environ
    own = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    foreign -= own
    found = Layers()
    faults: list[str] = []
    if config_file is not None:
        faults += sources_of.put_file(found, config_file, {**dotenv, **environ}, foreign)
    sources_of.put_environment(found, dotenv, kind=".env", rank=RANK_DOTENV)
    sources_of.put_environment(found, environ, kind="environment", rank=RANK_ENVIRONMENT)
    reader = _Reader(found, faults)
    value = reader.section(cls, "", _ABSENT)
    faults += reader.unknown(foreign, foreign | PLATFORM_SECTIONS - own)
    if faults:
        raise ConfigInvalid(faults)
    assert isinstance(value, cls)
    return Loaded(value, reader.sources)


def describe(loaded: Loaded[Any]) -> list[tuple[str, str, str]]:
    """Rows (dotted key, value with secrets hidden, source) of every setting, in the order of the classes."""
    return [
        (key, HIDDEN if isinstance(value, Secret) else _shown(value), loaded.sources[key])
        for key, value in _flatten(loaded.value, "")
    ]


class _Reader:
    """Builds dataclasses from layers; keeps faults instead of raising, so that one run finds them all."""

    def __init__(self, found: Layers, faults: list[str]) -> None:
        self.sources: dict[str, str] = {}
        self._found = found
        self._faults = faults
        self._known: list[str] = []
        self._used: set[str] = set()

    def section(self, cls: type[Any], path: str, base: Any) -> Any:
        """One dataclass; `base` holds the defaults of a section that its owner filled in advance.

        Returns:
            The instance, or None after faults.
        """
        if self._found.get(path) == "":
            self._used.add(path)
        before = len(self._faults)
        hints = get_type_hints(cls, include_extras=True)
        values = {
            field.name: self._field(
                hints[field.name], _join(path, field.name), _default(field, base)
            )
            for field in dataclasses.fields(cls)
            if field.init
        }
        if len(self._faults) > before:
            return None
        section = cls(**values)
        if hasattr(section, "check"):
            checked: _Checked = section
            self._faults += [_join(path, fault) for fault in checked.check()]
        return section

    def unknown(self, foreign: frozenset[str], of_variables: frozenset[str]) -> Iterator[str]:
        """A sentence for every value nobody asked for; variables may also be any other service's."""
        for path in self._found.paths():
            others = foreign if self._found.rank(path) == RANK_FILE else of_variables
            if path not in self._used and path.split(".")[0] not in others:
                source = self._found.source(path)
                near = difflib.get_close_matches(path, self._known, n=1, cutoff=0.75)
                hint = f"did you mean {near[0]}?" if near else "remove it"
                yield f"{path}: unknown key ({source}); {hint}"

    def _field(self, hint: Any, path: str, default: Any) -> Any:
        inner = without_none(hint)
        if dataclasses.is_dataclass(inner):
            if inner is not hint and default is None and not self._found.any_below(path):
                self.sources[path] = _DEFAULT
                return None
            return self.section(inner, path, default)  # type: ignore[arg-type]
        if get_origin(inner) is tuple:
            return self._many(get_args(inner)[0], path, default)
        if inner is Secret:
            return self._or_file(Secret, path, default)
        if OrFile in getattr(inner, "__metadata__", ()):
            return self._or_file(FileText, path, default)
        return self._scalar(hint, path, default)

    def _scalar(self, hint: Any, path: str, default: Any) -> Any:
        self._known.append(path)
        text = self._found.get(path)
        if text is None:
            return self._absent(path, default)
        if self._broken(path):
            return None
        self._used.add(path)
        self.sources[path] = self._found.source(path)
        try:
            return from_text(text, hint)
        except ValueError as error:
            self._faults.append(f"{path}: {error} ({self._found.source(path)})")
            return None

    def _many(self, hint: Any, path: str, default: Any) -> Any:
        """A tuple: a YAML list, or one text with commas; the sources of scalars are kept for the whole."""
        indexes = self._found.indexes(path)
        text = self._found.get(path)
        self._known.append(path)
        if text is not None:
            self._used.add(path)
        if not indexes and text is None:
            return self._absent(path, default)
        if self._broken(path):
            return ()
        if indexes and indexes != list(range(len(indexes))):
            self._faults.append(f"{path}: the positions {indexes} leave a hole; count from 0")
        if not indexes:
            self.sources[path] = self._found.source(path)
            return self._split(hint, path, text or "")
        if not dataclasses.is_dataclass(hint):
            self.sources[path] = self._found.source(f"{path}.{indexes[-1]}")
        values = [self._field(hint, f"{path}.{index}", _ABSENT) for index in indexes]
        return tuple(values)

    def _split(self, hint: Any, path: str, text: str) -> tuple[Any, ...]:
        if dataclasses.is_dataclass(hint) and text:
            self._faults.append(f"{path}: expected a list ({self._found.source(path)})")
            return ()
        try:
            return tuple(from_text(part.strip(), hint) for part in text.split(",") if part.strip())
        except ValueError as error:
            self._faults.append(f"{path}: {error} ({self._found.source(path)})")
            return ()

    def _or_file(self, kind: type[Secret] | type[FileText], path: str, default: Any) -> Any:
        """The text itself or `<field>_file`; the higher layer wins, both in one layer is a fault."""
        named = f"{path}_file"
        self._known += [path, named]
        text, file = self._found.get(path), self._found.get(named)
        self._used |= {path, named}
        if [self._broken(path), self._broken(named)] != [False, False]:
            return None
        if text is not None and file is not None:
            if self._found.rank(path) == self._found.rank(named):
                self._faults.append(f"{path}: given together with {named}; keep one of them")
            elif self._found.rank(path) > self._found.rank(named):
                file = None
        if file is not None:
            self.sources[path] = f"file {file} (named by {self._found.source(named)})"
            return self._of_file(kind, named, file)
        if text is None:
            return self._absent(path, default, file=True)
        self.sources[path] = self._found.source(path)
        return Secret(text) if kind is Secret else text

    def _of_file(
        self, kind: type[Secret] | type[FileText], named: str, file: str
    ) -> Secret | FileText | None:
        try:
            return kind.from_file(Path(file))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
            self._faults.append(f"{named}: {file} cannot be read ({reason}); check path and owner")
            return None

    def _broken(self, path: str) -> bool:
        """Report a text that could not be made; the field is then not read further."""
        fault = self._found.broken.get(path)
        if fault is not None:
            self._used.add(path)
            self._faults.append(fault)
        return fault is not None

    def _absent(self, path: str, default: Any, *, file: bool = False) -> Any:
        if default is not _ABSENT:
            self.sources[path] = _DEFAULT
            return default
        variable = sources_of.variable_of(path)
        or_file = f" or name a file with {path}_file" if file else ""
        self._faults.append(f"{path}: missing; set it in the file or as {variable}{or_file}")
        return None


def _default(field: "dataclasses.Field[Any]", base: Any) -> Any:
    if base is not _ABSENT and base is not None:
        return getattr(base, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _ABSENT


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _flatten(getattr(value, field.name), _join(path, field.name))
    elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        for index, entry in enumerate(value):
            yield from _flatten(entry, f"{path}.{index}")
    else:
        yield path, value


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(entry) for entry in value)
    return "" if value is None else str(value)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
