"""Keeps secrets out of a bundle, twice over: by the name of what holds them, and by their texts wherever these turn up."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from libs.runtime.layers import Layers
from libs.runtime.secret import HIDDEN

LONG: Final = 12
"""Letters from which on a secret is hidden inside of other words too; a short one may be a part of any word."""
FILE_BYTES_MAX: Final = 64 * 1024

_SECRET = re.compile(r"pass(word|wd|phrase)?|secret|token|key|credential|dsn|auth", re.IGNORECASE)
_IN_URL = re.compile(r"://\S+@")
"""Whatever stands before an @: a password may have any letter but a space, and more hidden than it is does no harm."""


class Hider:
    """Replaces secrets by three asterisks in whatever is handed out.

    Args:
        layers: the configuration: what stands under a secret's name, and in the files that it names for secrets.
        environ: variables with a secret's name.
    """

    def __init__(self, layers: Layers, environ: Mapping[str, str]) -> None:
        texts = {text for name, text in environ.items() if _is_secret(name)}
        for path in layers.paths():
            text = layers.get(path) or ""
            if _names_file(path):
                texts |= _of_file(Path(text)) if _is_secret(path) or "user" in path else set()
            elif _is_secret(path):
                texts.add(text)
        self._pattern = _pattern(texts)

    def hide(self, value: Any) -> Any:
        """Return the value with every text in it freed of secrets; what JSON does not know becomes text."""
        if isinstance(value, Mapping):
            return {self.hide(str(key)): self.hide(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.hide(entry) for entry in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        text = _IN_URL.sub(f"://{HIDDEN}@", str(value))
        return self._pattern.sub(HIDDEN, text) if self._pattern else text


def shown_configuration(layers: Layers) -> list[dict[str, str]]:
    """Every value that the file or the environment set, and by whom; what bears a secret's name is hidden."""
    return [
        {
            "key": path,
            "value": HIDDEN
            if _is_secret(path) and not _names_file(path)
            else layers.get(path) or "",
            "source": layers.source(path),
        }
        for path in layers.paths()
    ]


def shown_environment(environ: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """The variables that begin so; those with a secret's name only by name."""
    return {
        name: HIDDEN if _is_secret(name) and not _names_file(name) else value
        for name, value in sorted(environ.items())
        if name.startswith(prefixes)
    }


def _is_secret(path: str) -> bool:
    """Whether any part of the name says so: of a list's entry the last part is a number."""
    return _SECRET.search(path) is not None


def _names_file(path: str) -> bool:
    return path.lower().endswith("_file")


def _of_file(file: Path) -> set[str]:
    """The file's text and each of its longer lines: a key may be shown line by line."""
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX).decode("utf-8", "replace").strip()
    except OSError:
        return set()
    return {text, *(line for line in text.splitlines() if len(line) >= LONG)}


def _forms(text: str) -> tuple[str, ...]:
    """As it is, as in a URL, and as in a JSON text that stands in another text."""
    return (
        text,
        quote(text, safe=""),
        *(json.dumps(text, ensure_ascii=flag)[1:-1] for flag in (True, False)),
    )


def _pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    parts = []
    written = {form for text in texts if text for form in _forms(text)}
    for text in sorted(written, key=len, reverse=True):
        word = re.escape(text)
        parts.append(word if len(text) >= LONG else rf"(?<![\w-]){word}(?![\w-])")
    return re.compile("|".join(parts)) if parts else None
