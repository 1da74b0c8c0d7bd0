"""values.schema.json: closed, true to values.yaml and to the services' settings, and of use to whoever misspells."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.chart.render import CHART, SCENARIOS, helm, scenario_values
from tests.support.chart.settings_schema import definitions

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
OPEN = {
    "global": "subcharts' and parents'",
    "production.tolerations[]": "Kubernetes'",
    "deduplicator.tolerations[]": "Kubernetes'",
    "archiver.tolerations[]": "Kubernetes'",
    "operator.tolerations[]": "Kubernetes'",
    "simulator.tolerations[]": "Kubernetes'",
    "s3server.tolerations[]": "Kubernetes'",
    "zoneDefaults.tolerations[]": "Kubernetes'",
    "zones[].tolerations[]": "Kubernetes'",
    "extraEnv[]": "Kubernetes'",
    "monitoring.from[]": "Kubernetes'",
}
"""Objects that may have any key, and whose they are."""
SWITCHES = {
    "archiver.enabled", "crds.kopf", "crds.upgrade", "deduplicator.enabled", "networkPolicy.enabled",
    "operator.enabled", "priorityClasses.create", "storageClass.create", "tests.enabled", "zoneDefaults.enabled",
}  # fmt: skip
"""What would leave out what other keys speak of: on in `everything`, off in `bare`."""
ELSEWHERE = {
    "production.host": "eks",
    "production.port": "monitoring",
}
"""What `everything` cannot say beside other keys, and which scenario says it."""


def _resolve(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["definitions"][reference.rsplit("/", 1)[1]] if reference else schema


def _leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every path of the schema that is no closed object, with its schema; lists by their items."""
    schema = _resolve(schema)
    if "properties" in schema:
        for name, below in schema["properties"].items():
            yield from _leaves(below, f"{path}.{name}" if path else name)
    elif "properties" in _resolve(schema.get("items", {})):
        yield from _leaves(schema["items"], f"{path}[]")
    else:
        yield path, schema


def _objects(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    schema = _resolve(schema)
    if schema.get("type") == "object":
        yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from _objects(below, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _objects(schema["items"], f"{path}[]")


def _at(values: Any, path: str) -> list[Any]:
    """What stands at a path; nothing where a part of it is missing."""
    found = [values]
    for part in re.findall(r"[^.\[\]]+|\[\]", path):
        if part == "[]":
            found = [item for one in found for item in one]
        else:
            found = [one[part] for one in found if isinstance(one, dict) and part in one]
    return found


def test_the_schema_is_closed() -> None:
    """Every object refuses a key it does not know, but for those that are somebody else's."""
    opened = {
        path
        for path, schema in _objects(SCHEMA)
        if schema.get("additionalProperties") is not False
        and not isinstance(schema.get("additionalProperties"), dict)
    }
    assert opened == set(OPEN)
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].startswith("http://json-schema.org/draft-07/")


def test_every_key_of_the_values_is_in_the_schema_and_back() -> None:
    """values.yaml names every key once, with its default; only what is free by zone or component is named elsewhere."""
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(VALUES)) == []
    free = [
        path for path, value in _walk(VALUES) if value in ({}, [])
    ]  # their keys: README, or Kubernetes
    missing = [
        path
        for path, _ in _leaves(SCHEMA)
        if not _at(VALUES, path)
        and not path.startswith(tuple(f"{one}{mark}" for one in free for mark in ".["))
    ]
    zone = SCHEMA["properties"]["zones"]["items"]["properties"]
    defaults = SCHEMA["properties"]["zoneDefaults"]["properties"]
    assert [path for path in missing if not path.startswith("zones[].")] == []
    assert {name: zone[name] for name in zone if name != "name"} == defaults


def _walk(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        own = f"{path}.{name}" if path else name
        yield own, value
        if isinstance(value, dict):
            yield from _walk(value, own)


def test_settings_in_the_schema_are_the_services_own() -> None:
    """What a service would refuse at its start is refused by helm; `python -m tests.support.chart` writes them anew."""
    assert {name: SCHEMA["definitions"][name] for name in definitions()} == definitions()


def _refuses(change: Mapping[str, Any], *naming: str) -> None:
    with (
        helm().Chart.load(str(CHART)) as chart,
        pytest.raises(helm().HelmValuesError) as refusal,
    ):
        chart.validate_schema(dict(change))
    for name in naming:
        assert name in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        ({"imgae": {}}, ["imgae"]),
        ({"image": {"tags": "1"}}, ["tags"]),
        ({"image": {"tag": "latest"}}, ["image", "tag"]),
        ({"image": {"digest": "sha256:1"}}, ["digest"]),
        ({"zones": []}, ["zones"]),
        ({"zones": [{"topologyZone": "x"}]}, ["name"]),
        ({"zones": [{"name": "Zone_A"}]}, ["name"]),
        ({"zones": [{"name": "a", "databse": {}}]}, ["databse"]),
        ({"zones": [{"name": "a", "connectors": {"replicas": 2}}]}, ["replicas"]),
        ({"zoneDefaults": {"connectors": {"shards": 65}}}, ["shards"]),
        ({"zoneDefaults": {"connectors": {"shards": "two"}}}, ["shards"]),
        ({"zoneDefaults": {"connectors": {"settings": {"heartbeats_s": 1}}}}, ["heartbeats_s"]),
        ({"zoneDefaults": {"connectors": {"settings": {"state_dir": "/"}}}}, ["state_dir"]),
        ({"zoneDefaults": {"exchange": {"settings": {"api_key_id": "k"}}}}, ["api_key_id"]),
        ({"zoneDefaults": {"slots": {"orderbooks": 1}}}, ["orderbooks"]),
        ({"zoneDefaults": {"slots": {"orderbook": 0}}}, ["orderbook"]),
        ({"zoneDefaults": {"capture": {"series_include": "KX*"}}}, ["series_include"]),
        ({"zoneDefaults": {"database": {"storage": {"size": "200 GB"}}}}, ["size"]),
        ({"zoneDefaults": {"database": {"existingSecrets": {"archiver": "x"}}}}, ["archiver"]),
        ({"zoneDefaults": {"database": {"resources": {"request": {}}}}}, ["request"]),
        ({"zoneDefaults": {"database": {"uid": 0}}}, ["uid"]),
        ({"production": {"port": "5432"}}, ["port"]),
        ({"production": {"tls": {"mode": "verify-none"}}}, ["mode"]),
        ({"production": {"password": "x"}}, ["password"]),
        ({"archive": {"root": "bucket/prefix"}}, ["root"]),
        ({"archive": {"secretAccessKey": "x"}}, ["secretAccessKey"]),
        ({"exchange": {"environment": "production"}}, ["environment"]),
        ({"rollout": {"released": "a"}}, ["released"]),
        ({"archiver": {"settings": {"root": "s3://x/y"}}}, ["root"]),
        ({"deduplicator": {"replicas": 2}}, ["replicas"]),
        ({"operator": {"settings": {"plan_s": 0}}}, ["plan_s"]),
        ({"simulator": {"settings": {"tier": "gold"}}}, ["tier"]),
        ({"networkPolicy": {"privateCidrs": ["10.0.0.0"]}}, ["privateCidrs"]),
        ({"monitoring": {"serviceMonitor": {"interval": 30}}}, ["interval"]),
        ({"log": {"level": "warn"}}, ["level"]),
        ({"podAnnotations": {"a": 1}}, ["podAnnotations"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_is_misspelt_or_of_another_type_is_refused_by_name(
    change: dict[str, Any], naming: list[str]
) -> None:
    """The message names the key."""
    _refuses(change, *naming)


def test_every_closed_object_refuses_a_stranger() -> None:
    """A key put anywhere into the full set of values is refused, and named."""
    values = scenario_values("everything")
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert list(validator.iter_errors(values)) == []
    closed = [p for p, s in _objects(SCHEMA) if s.get("additionalProperties") is False]
    tried = 0
    for path in closed:
        broken = copy.deepcopy(values)
        for one in _at(broken, path)[:1] if path else [broken]:
            one["stranger"] = 1
            tried += 1
            assert any("stranger" in e.message for e in validator.iter_errors(broken)), path
    assert tried > 50


def test_everything_sets_every_key_to_another_value() -> None:
    """So that lint and rendering go through every branch; what cannot be said beside others is said elsewhere."""
    values = scenario_values("everything")
    untouched = set()
    for path, _ in _leaves(SCHEMA):
        if path.startswith("zones[].") or path in SWITCHES:
            continue
        given = _at(values, path)
        if not given or given == _at(VALUES, path):
            untouched.add(path)
    assert untouched == set(ELSEWHERE)
    assert all(_at(scenario_values(name), path) for path, name in ELSEWHERE.items())
    zones = values["zones"]
    assert any(set(zone) > {"name", "topologyZone"} for zone in zones)


def test_every_switch_is_on_in_one_scenario_and_off_in_another() -> None:
    """A branch that no scenario takes is a branch nobody has looked at."""
    switches = {path for path, schema in _leaves(SCHEMA) if schema.get("type") == "boolean"}
    switches -= {path for path in switches if ".settings." in path or path.startswith("zones[].")}
    assert switches >= SWITCHES
    for path in sorted(switches):
        default = _at(VALUES, path)
        seen = {
            one
            for name in SCENARIOS
            for one in (_at(scenario_values(name), path) or default)
            if isinstance(one, bool)
        }
        if path == "zoneDefaults.enabled":
            seen |= {
                zone["enabled"] for zone in scenario_values("bare")["zones"] if "enabled" in zone
            }
        assert seen >= {True, False} or ".capture." in path, path
