"""Where configuration comes from: one YAML file, then `.env`, then the environment; the later layer wins.

dynaconf keeps the layers and remembers which of them set a value. It is given flat dotted paths and plain strings only,
with its casting switched off: left to itself it parses the environment as TOML (a password 12345678 becomes a number),
concatenates lists, evaluates values that begin with `@`, and lets a key named `store` or `items` resolve to one of its
own methods. YAML too is read without guessing types; what a string means is decided by the field that takes it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dotenv
import yaml
from dynaconf import Dynaconf
from dynaconf.loaders.base import SourceMetadata

PREFIX = "KALSHI_DATA_"
RESERVED = frozenset(
    f"{PREFIX}{name}" for name in ("CONFIG", "ENV", "BUILD_VERSION", "BUILD_COMMIT", "BUILD_DATE")
)
"""Variables with the prefix that are no settings: the file's path, the name of the environment, what a build knows."""

RANK_FILE, RANK_DOTENV, RANK_ENVIRONMENT = range(3)
"""The layers from the bottom."""

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^}])*))?\})")
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay text, and in which a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Layers:
    """Flat entries (dotted path -> text) with their sources, laid over each other.

    Attributes:
        broken: the fault of each path whose text could not be made; a higher layer that sets the path mends it.
    """

    def __init__(self) -> None:
        self._dynaconf: Any = Dynaconf(
            environments=False,
            load_dotenv=False,
            core_loaders=[],
            loaders=[],
            settings_files=[],
            envvar_prefix=False,
            auto_cast=False,
            dotted_lookup=False,
            nested_separator="",
        )
        self.broken: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._ranks: dict[str, int] = {}

    def put(self, path: str, text: str, source: str, rank: int) -> None:
        """Set one value; everything an earlier layer had at or below this path is gone."""
        for below in [p for p in self._paths if p.startswith(f"{path}.")]:
            del self._paths[below]
            self.broken.pop(below, None)
        self.broken.pop(path, None)
        key = f"path:{path}"
        self._dynaconf.set(
            key, text, loader_identifier=SourceMetadata(source, key, "default", False)
        )
        self._paths[path] = source
        self._ranks[path] = rank

    def get(self, path: str) -> str | None:
        """The text at this path, None where no layer has one."""
        if path not in self._paths:
            return None
        text = self._dynaconf.get(f"path:{path}")
        assert isinstance(text, str), path
        return text

    def source(self, path: str) -> str:
        """Who set the value: "file NAME", ".env NAME" or "environment NAME"."""
        return self._paths[path]

    def rank(self, path: str) -> int:
        """The layer's height; the higher wins."""
        return self._ranks[path]

    def paths(self) -> tuple[str, ...]:
        """Every path that is set, in the order it was met."""
        return tuple(self._paths)

    def any_below(self, path: str) -> bool:
        """Whether something is set at this path or below it."""
        return any(p == path or p.startswith(f"{path}.") for p in self._paths)

    def indexes(self, path: str) -> list[int]:
        """The list positions that are set below this path, in order."""
        heads = {p[len(path) + 1 :].split(".")[0] for p in self._paths if p.startswith(f"{path}.")}
        return sorted(int(head) for head in heads if head.isdigit())


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file; none when there is no such file."""
    values = dotenv.dotenv_values(path, interpolate=False) if path.is_file() else {}
    return {name: value for name, value in values.items() if value is not None}


def sections_of(path: Path) -> frozenset[str]:
    """The names of a YAML file's sections; none when it cannot be read, which put_file tells of."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)  # noqa: S506 - text only
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return frozenset()
    return frozenset(tree) if isinstance(tree, dict) else frozenset()


def put_file(
    layers: Layers, path: Path, environ: Mapping[str, str], foreign: frozenset[str]
) -> Iterator[str]:
    """Lay a YAML file down, `${VAR}` and `${VAR:-default}` replaced; yields its faults.

    A section of `foreign` is passed over unread: it may need variables that only its own service has.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)  # noqa: S506 - text only
    except OSError as error:
        yield f"{path}: cannot be read ({error.strerror}); name a readable file with --config"
        return
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        yield f"{path}: is no valid YAML: {' '.join(str(error).split())}"
        return
    if tree is None or tree == "":
        return
    if not isinstance(tree, dict):
        yield f"{path}: must be a mapping of sections, not a {type(tree).__name__}"
        return
    source = f"file {path.name}"
    for key, text in _leaves({k: v for k, v in tree.items() if k not in foreign}, ""):
        try:
            layers.put(key, substitute(text, environ), source, rank=RANK_FILE)
        except KeyError as missing:
            name = missing.args[0]
            layers.put(key, "", source, rank=RANK_FILE)
            layers.broken[key] = (
                f"{key}: the variable {name} of {source} is not set;"
                f" export {name} or write ${{{name}:-default}}"
            )


def put_environment(layers: Layers, environ: Mapping[str, str], *, kind: str, rank: int) -> None:
    """Lay the variables KALSHI_DATA_SECTION__KEY down; a list's entry is KALSHI_DATA_SECTION__0__KEY."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in RESERVED and not is_service_link(name, environ):
            path = name[len(PREFIX) :].lower().replace("__", ".")
            layers.put(path, environ[name], f"{kind} {name}", rank)


def variable_of(path: str) -> str:
    """The name of the variable that sets a dotted path."""
    return PREFIX + path.replace(".", "__").upper()


def is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    """Whether Kubernetes put this variable there for a Service whose name begins with ours."""
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and _LINK_VALUE.match(environ[name]) is not None


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${VAR}` and `${VAR:-default}` (for unset or empty), `$$` by one dollar sign.

    What a variable holds is not looked at again.

    Raises:
        KeyError: a variable without a default is not set; its name.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name is None:
            return "$"
        if default is not None:
            return environ.get(name) or default
        return environ[name]

    return _REFERENCE.sub(value, text)


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Flatten a tree of mappings and lists to (dotted path, text); empty branches vanish but for empty lists."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from _leaves(value, f"{path}.{index}")
    else:
        yield path, node if isinstance(node, str) else ""
