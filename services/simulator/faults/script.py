"""Fault scripts: files of entries, and journals turned back into such entries."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from libs.marketdata.units import SECOND
from libs.runtime.errors import ConfigInvalid
from services.simulator.faults.entries import FaultInvalid, read_entry, write_entry
from services.simulator.faults.menu import Fault


class ScriptInvalid(ConfigInvalid):
    """A fault script cannot be used; every wrong entry is named by its place."""


def read_script(path: Path) -> list[Fault]:
    """Read a file: a list of entries, or a mapping with that list under `faults`; JSON by its suffix, else YAML.

    Raises:
        ScriptInvalid: it cannot be read, or entries are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ScriptInvalid([f"simulator.faults_file: {path}: {error}"]) from error
    try:
        return parse_script(tree)
    except FaultInvalid as error:
        raise ScriptInvalid(
            [f"simulator.faults_file: {path}: {line}" for line in error.faults]
        ) from error


def _read_yaml(text: str) -> object:
    """Read YAML as texts, lists and mappings of them: YAML's own reading makes a truth value of the key `on`."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (it makes nothing but texts)


def parse_script(tree: object) -> list[Fault]:
    """Read entries that came out of a file or a request, in the order of their times.

    Raises:
        FaultInvalid: the first entry is called `faults[0]`.
    """
    entries = tree.get("faults") if isinstance(tree, Mapping) else tree
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise FaultInvalid(["faults: expected a list of entries such as {fault: drop, at_s: 3}"])
    found: list[Fault] = []
    faults: list[str] = []
    for place, entry in enumerate(entries):
        try:
            found.append(read_entry(entry))
        except FaultInvalid as error:
            faults += [f"faults[{place}].{line}" for line in error.faults]
    if faults:
        raise FaultInvalid(faults)
    return sorted(found, key=lambda fault: fault.at_s or 0.0)


def write_script(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """Return the entries that read as these faults."""
    return [write_entry(fault) for fault in faults]


def script_of_journal(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Turn a session journal into the script of what was injected, however it came.

    A fault that was ended early lasts as long as it did.
    """
    entries: dict[int, dict[str, Any]] = {}
    begun: dict[int, int] = {}
    marker = '"kind":"fault"'
    for line in lines:
        if (marker.encode() if isinstance(line, bytes) else marker) not in line:  # type: ignore[operator]
            continue
        told = json.loads(line)
        number = told.get("number")
        if told.get("phase") == "begin":
            entries[number] = dict(told["entry"])
            begun[number] = told["at"]
        elif told.get("phase") == "end" and number in entries and told.get("early"):
            entries[number]["for_s"] = round((told["at"] - begun[number]) / SECOND, 6)
    return list(entries.values())
