"""What the two locks say, and what pyproject.toml asks for, as data."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
IMAGE_LOCK = ROOT / "requirements.image.lock"
LOCK = ROOT / "requirements.lock"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_OURS = re.compile(r"kalshi-data\[(?P<extras>[^\]]+)\]")


class Pin(NamedTuple):
    """One requirement of a lock: name, version, the sha256 of its files, and the line without them as pip reads it."""

    name: str
    version: str
    hashes: frozenset[str]
    line: str


def pins(path: Path) -> list[Pin]:
    """Return the requirements of a lock; a name may stand twice, for different machines or Pythons."""
    found = []
    for entry in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip()):
        line = entry.split("\\", 1)[0].strip()
        version = re.sub(r"^[^=]+==([^ ;]+).*$", r"\1", line)
        hashes = frozenset(re.findall(r"sha256:([0-9a-f]{64})", entry))
        found.append(Pin(normalized(line), version, hashes, line))
    return found


def normalized(requirement: str) -> str:
    """Return the name a requirement begins with, as indexes write it."""
    match = _NAME.match(requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def asked_for(extras: frozenset[str]) -> frozenset[str]:
    """Return the names that the project and these extras ask for directly, extras of extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted, names = set(extras), {normalized(line) for line in project["dependencies"]}
    done: set[str] = set()
    while wanted - done:
        extra = (wanted - done).pop()
        done.add(extra)
        for line in project["optional-dependencies"][extra]:
            ours = _OURS.match(line)
            if ours:
                wanted |= {name.strip() for name in ours["extras"].split(",")}
            else:
                names.add(normalized(line))
    return frozenset(names)


def all_extras() -> frozenset[str]:
    """Return the names of every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return frozenset(project["optional-dependencies"])


def image_extras() -> frozenset[str]:
    """Return the extras that `make lock` puts into the image's lock."""
    match = re.search(
        r"^IMAGE_EXTRAS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert match
    return frozenset(match.group(1).split())
