"""helm's own opinion of the chart."""

from typing import Any

import pytest

from tests.support.chart.render import CHART, NAMESPACE, SCENARIOS, helm, render, scenario_values

VERSIONS = ("v1.31.0", "v1.33.0", "v1.35.0", "v1.37.0")
"""From the oldest that the README names to the newest; each scenario is linted for one of them."""


@pytest.mark.parametrize(("number", "scenario"), list(enumerate(SCENARIOS)))
def test_no_scenario_has_a_finding(number: int, scenario: str) -> None:
    """Strictly: neither error nor warning; icons are a matter of taste."""
    report = helm().lint(
        str(CHART),
        scenario_values(scenario),
        strict=True,
        kube_version=VERSIONS[number % len(VERSIONS)],
        namespace=NAMESPACE,
        quiet=True,
    )
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] != 1] == []


def test_values_that_contradict_each_other_are_refused_together() -> None:
    """What no schema can say: one message with every fault, each naming its key and what to do."""
    values = {
        "zones": [
            {"name": "a", "topologyZone": "z-1", "account": "one"},
            {"name": "b", "account": "one"},
            {"name": "a", "topologyZone": "z-3"},
            {"name": "simulator", "topologyZone": "z-4"},
        ],
        "simulator": {"enabled": True},
        "rollout": {"released": ["nowhere"]},
    }
    with pytest.raises(helm().HelmError) as refusal:
        render(values)
    told = str(refusal.value)
    for fault in (
        "the name a is taken",
        "the name simulator is taken",
        "b: topologyZone is missing",
        "account one and one to move in each of its 2 zones are 302 connections, above its connections_max of 200",
        "simulator.enabled: nobody would use it",
        "production.host: name the external database's host",
        "production.existingSecrets.superuser: name the Secret",
        "archive.root: name a bucket",
        "there is no enabled zone nowhere",
    ):
        assert fault in told


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"production": {"tls": {"mode": "require"}}}, "production.tls.mode: require: the database in the chart has no TLS"),
        ({"production": {"tls": {"mode": "verify-full"}}}, "production.tls.mode: verify-full: the database"),
        ({"production": {"tls": {"mode": "prefer"}}}, ""),
        (
            {"zoneDefaults": {"connectors": {"shards": 7}, "database": {"maxConnections": 151}}},
            "zones: a: connectors.shards of 7 may open 152 connections, above the database's maxConnections of 151: at most 6 fit",
        ),
        ({"zoneDefaults": {"connectors": {"shards": 7}, "database": {"maxConnections": 152}}}, ""),
        # What is given to postgres itself wins over maxConnections.
        (
            {"zoneDefaults": {"connectors": {"shards": 7}, "database": {"maxConnections": 99, "parameters": {"max_connections": "152"}}}},
            "",
        ),
        (
            {"zoneDefaults": {"connectors": {"shards": 1}, "database": {"maxConnections": 60}}},
            "connectors.shards of 1 may open 80 connections, above the database's maxConnections of 60: at most 0 fit",
        ),
        (
            {"zoneDefaults": {"account": "one", "slots": {"connections_max": 44}}},
            "the slots of account one and one to move in each of its 3 zones are 45 connections, above its connections_max of 44",
        ),
        ({"zoneDefaults": {"account": "one", "slots": {"connections_max": 45}}}, ""),
        (
            {"zoneDefaults": {"account": "one", "slots": {"connections_max": 50}, "connectors": {"settings": {"extra_connections_max": 2}}}},
            "zones: a: connectors.settings.extra_connections_max of 2 is above the 1 that the zone's share of account one leaves",
        ),
    ],
)  # fmt: skip
def test_what_would_not_run_is_refused(change: dict[str, Any], fault: str) -> None:
    """One fault at a time beside values that work, and the next number that does work."""
    values = {
        **scenario_values("kind"),
        "zoneDefaults": {"slots": {"orderbook": 8, "ticker": 2, "trade": 2, "lifecycle": 2}},
    }
    values = _merged(values, change)
    if not fault:
        assert render(values).of("Gatherer")
        return
    with pytest.raises(helm().HelmError) as refusal:
        render(values)
    assert fault in str(refusal.value)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and key in base
    }
    return {**base, **over, **both}
