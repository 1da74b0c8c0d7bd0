"""Which build this is: `kalshi-data v1.0.0 (abc1234) built 2026-06-11T12:00:00Z`.

The number comes from the checkout's pyproject.toml, else from the installed distribution. Commit and date come, in this order, from KALSHI_DATA_BUILD_COMMIT and
KALSHI_DATA_BUILD_DATE (an image sets them), from `build_info.json` beside this file (a wheel's build may write it), from
the git checkout this file lies in (the date is then the commit's). What nobody knows is "unknown"; nothing here raises.
"""

import functools
import importlib.metadata
import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DISTRIBUTION = "kalshi-data"
UNKNOWN = "unknown"
GIT_TIMEOUT_S = 5
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Version number, short commit, and date of the build or commit (RFC 3339)."""

    version: str
    commit: str
    date: str

    def __str__(self) -> str:
        return f"{DISTRIBUTION} v{self.version} ({self.commit}) built {self.date}"


@functools.cache
def build_info() -> BuildInfo:
    """What this process runs; looked up once."""
    return find_build_info(os.environ, _HERE)


def find_build_info(environ: Mapping[str, str], folder: Path) -> BuildInfo:
    """Look a build up from variables, then `build_info.json` in `folder`, then the checkout around it."""
    known = {**_from_file(folder / "build_info.json"), **_from_environment(environ)}
    if not {"commit", "date"} <= known.keys():
        known = {**_from_git(folder), **known}
    commit = known.get("commit", UNKNOWN)
    return BuildInfo(
        version=known.get("version") or _written_version(folder.parents[1]) or _installed_version(),
        commit=commit if commit == UNKNOWN else commit[:7],
        date=known.get("date", UNKNOWN),
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: environ.get(f"KALSHI_DATA_BUILD_{name.upper()}", "") for name in _NAMES}
    return {name: value for name, value in found.items() if value}


def _from_file(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: str(found[name]) for name in _NAMES if found.get(name)}


def _from_git(folder: Path) -> dict[str, str]:
    if not (folder.parents[1] / ".git").exists():
        return {}
    command = ["git", "-C", str(folder), "log", "-1", "--format=%H %cI"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
        commit, date = answer.stdout.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return {"commit": commit, "date": date}


def _written_version(root: Path) -> str:
    """The version in a checkout; it is newer than what pip noted when the package was installed from there."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return ""
    return str(project["version"]) if project.get("name") == DISTRIBUTION else ""


def _installed_version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


_NAMES = ("version", "commit", "date")
