"""What an upgrade begins with: the last released chart; before the first release this commit under another name."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.images import ROOT
from tests.cluster.values import CHART

FOLDER = ROOT / "tests/deploy/previous"
_VERSION = re.compile(r"^version: *(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Previous:
    """The version before this one.

    Attributes:
        released: whether there was one. image: its services' image, empty: this tree's. values: what its chart is to be
            told besides its own development set.
    """

    released: bool
    said: str
    chart: Path
    image: str
    values: dict[str, Any] = field(default_factory=dict)


def read_previous(folder: Path = FOLDER, current: Path = CHART) -> Previous:
    """Read what the folder names.

    Raises:
        ValueError: it names a release and has no chart of it.
    """
    told = yaml.safe_load((folder / "previous.yaml").read_text())
    if not told["commit"]:
        said = "nothing was released yet: from this commit to itself, under another image tag and chart version"
        return Previous(False, said, current, "")
    chart = folder / "chart"
    if not (chart / "Chart.yaml").is_file():
        raise ValueError(f"{folder}: previous.yaml names {told['version']}, but there is no chart")
    said = f"from {told['version']} ({told['commit'][:12]})"
    own = folder / "values.yaml"
    values = yaml.safe_load(own.read_text()) if own.is_file() else None
    return Previous(True, said, chart, str(told["image"]), values or {})


def next_version(version: str) -> str:
    """Return the version after this one: its last number one more."""
    head, _, last = version.rpartition(".")
    return f"{head}.{int(last) + 1}"


def copy_as_next(chart: Path, target: Path) -> Path:
    """Copy a chart under the next version; return the copy's path."""
    shutil.copytree(chart, target, dirs_exist_ok=True)
    path = target / "Chart.yaml"
    text = path.read_text()
    found = _VERSION.search(text)
    assert found is not None, path
    path.write_text(_VERSION.sub(f"version: {next_version(found[1])}", text))
    return target
