"""Names a rollout by what it brings: the same chart, files of values and words are the same rollout, and may be continued."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from services.rollout.errors import WordsWrong

LETTERS: Final = 12
_FILES: Final = ("-f", "--values", "--set-file")
_VERSION: Final = r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?"
_NAMED: Final = re.compile(rf"@sha256:[0-9a-f]{{64}}$|[:-]{_VERSION}(\.tgz)?$")
"""How an address of a chart ends that says itself which chart it is: oci://...:1.2.3, https://.../name-1.2.3.tgz."""


def fingerprint(chart: str, words: Sequence[str]) -> str:
    """Return the name: of a chart in a folder or file, and of files of values, the contents count, not the names.

    Raises:
        WordsWrong: a chart elsewhere without an exact version: after a rollout that ended well a newer chart would bear its
            name, and go to all zones at once.
    """
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
    elif place.is_file():
        yield place.read_bytes()
    elif _NAMED.search(chart) or re.fullmatch(_VERSION, _version(words)):
        yield chart.encode()
    else:
        raise WordsWrong(
            f"{chart} is not here: say which one it is, --version 1.2.3, so that a second run brings the same"
        )
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


def _version(words: Sequence[str]) -> str:
    """The last --version of the words, as helm takes it; empty without one."""
    return ["", *(value for word, value in pairwise(words) if word == "--version")][-1]


def _of_file(name: str) -> bytes:
    file = Path(name)
    return file.read_bytes() if file.is_file() else name.encode()
