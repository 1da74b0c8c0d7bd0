"""Journals: JSON lines in buffered files, complete on disk after `flush`."""

import json
from pathlib import Path

_BUFFER_BYTES = 1 << 20


class Journal:
    """One append-only file of JSON lines; it begins empty."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", buffering=_BUFFER_BYTES, encoding="utf-8")

    def line(self, text: str) -> None:
        """Append a line that is already JSON and ends with a newline."""
        self._file.write(text)

    def record(self, fields: dict[str, object]) -> None:
        self._file.write(json.dumps(fields, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()
