"""Values that may stand in a file of their own, as in a mounted Secret: read again whenever they are used.

A secret never shows itself: in logs, tracebacks and `config show` it is three asterisks. What is no secret but comes with
one (the user's name beside the password) is a plain text that knows its file.
"""

from pathlib import Path
from typing import Self

HIDDEN = "***"


class Secret:
    """A password or key; `reveal` is the only way to its text.

    A secret that was given as a file is read again at every `reveal`, so that a rotated Secret is used by the next new
    connection without a restart. While the file cannot be read (it is being replaced) the last good text is used.
    """

    __slots__ = ("_path", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._path: Path | None = None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a secret from a file; one newline at the end does not belong to it.

        Raises:
            OSError: the file cannot be read.
            UnicodeDecodeError: the file is no UTF-8 text.
        """
        secret = cls(_read(path))
        secret._path = path
        return secret

    def reveal(self) -> str:
        """The text itself; hand it to the library that needs it and keep it nowhere."""
        if self._path is not None:
            try:
                self._text = _read(self._path)
            except (OSError, UnicodeDecodeError):
                return self._text
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reveal() == other.reveal()

    def __hash__(self) -> int:
        return hash(Secret)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")


class OrFile:
    """Marks a field of text that `<field>_file` may give as well: `user: Annotated[str, OrFile]`."""


class FileText(str):
    """A text as its file had it at the start; `current` says what the file has now. path: the file."""

    __slots__ = ("path",)

    path: Path

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a text from a file; one newline at the end does not belong to it.

        Raises:
            OSError: the file cannot be read.
            UnicodeDecodeError: the file is no UTF-8 text.
        """
        text = cls(_read(path))
        text.path = path
        return text


def current(text: str) -> str:
    """Return the text of this moment: one that was given as a file is read again, and stays while that cannot be read."""
    if not isinstance(text, FileText):
        return text
    try:
        return _read(text.path)
    except (OSError, UnicodeDecodeError):
        return str(text)
