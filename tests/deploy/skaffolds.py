"""skaffold.yaml as skaffold reads it: the file, and the file with profiles applied."""

import copy
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.locks import ROOT

SKAFFOLD = ROOT / "skaffold.yaml"
SCHEMA = ROOT.parent / "shared" / "reference" / "schemas" / "skaffold-v4beta14.json"
SITE_VALUES = "{{.KALSHI_DATA_SITE_VALUES}}"
"""What a site adds to the profile eks; a file of its own, outside of the repository."""


def read(path: Path = SKAFFOLD) -> dict[str, Any]:
    """Return a YAML file's one document."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def with_profiles(*names: str) -> dict[str, Any]:
    """Return the configuration with these profiles applied in the file's order, as skaffold does.

    A profile's own sections go over the configuration's, lists as a whole; then its patches are made.
    """
    config = read()
    profiles = config.pop("profiles")
    assert set(names) <= {profile["name"] for profile in profiles}
    for profile in profiles:
        if profile["name"] in names:
            sections = ("build", "deploy", "portForward", "manifests")
            _overlay(config, {key: profile[key] for key in sections if key in profile})
            for patch in profile.get("patches", []):
                _patch(config, patch["op"], patch["path"], copy.deepcopy(patch["value"]))
    return config


def release(config: dict[str, Any]) -> dict[str, Any]:
    """Return the one Helm release."""
    releases = config["deploy"]["helm"]["releases"]
    assert len(releases) == 1
    found: dict[str, Any] = releases[0]
    return found


def artifacts(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is built, by the image's name."""
    return {artifact["image"]: artifact for artifact in config["build"]["artifacts"]}


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _overlay(under[key], value)
        else:
            under[key] = copy.deepcopy(value)


def _patch(config: dict[str, Any], operation: str, path: str, value: Any) -> None:
    """Make one JSON patch; its way must be there, and for `replace` its end."""
    *way, key = path.strip("/").split("/")
    place: Any = config
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        assert operation == "add"
        assert key == "-"
        place.append(value)
        return
    assert operation == "add" or (operation == "replace" and key in place)
    place[key] = value
