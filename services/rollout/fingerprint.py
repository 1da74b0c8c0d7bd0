"""Names a rollout by what it brings: the same chart, files of values and words are the same rollout, and may be continued."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

LETTERS: Final = 12
_FILES: Final = ("-f", "--values", "--set-file")


def fingerprint(chart: str, words: Sequence[str]) -> str:
    """Return the name: of a chart in a folder or file, and of files of values, the contents count, not the names."""
    digest = hashlib.sha256()
    for part in _parts(chart, words):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:LETTERS]


def _parts(chart: str, words: Sequence[str]) -> Iterator[bytes]:
    place = Path(chart)
    if place.is_dir():
        for found in sorted(path for path in place.rglob("*") if path.is_file()):
            yield found.relative_to(place).as_posix().encode()
            yield found.read_bytes()
    else:
        yield _of_file(chart)
    before = ""
    for word in words:
        if before in _FILES:
            # --set-file has KEY=FILE, -f may name several with commas.
            for name in word.split(","):
                key, _, file = name.rpartition("=") if before == "--set-file" else ("", "", name)
                yield key.encode()
                yield _of_file(file)
        else:
            yield word.encode()
        before = word


def _of_file(name: str) -> bytes:
    file = Path(name)
    return file.read_bytes() if file.is_file() else name.encode()
