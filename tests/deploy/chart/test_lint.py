"""helm's own opinion of the chart."""

from typing import Any

import pytest

from tests.support.chart.render import CHART, NAMESPACE, SCENARIOS, helm, scenario_values

OLDEST, NEWEST = "v1.31.0", "v1.37.0"


def _lint(values: dict[str, Any], version: str = NEWEST) -> list[str]:
    report = helm().lint(
        str(CHART), values, strict=True, kube_version=version, namespace=NAMESPACE, quiet=True
    )
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    return [one["error"] for one in report["messages"] if one["severity"] != 1]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_scenario_has_a_finding(scenario: str) -> None:
    """Strictly: neither error nor warning; icons are a matter of taste."""
    assert _lint(scenario_values(scenario)) == []


@pytest.mark.parametrize("version", [OLDEST, "v1.33.0", "v1.34.0"])
def test_no_cluster_version_makes_a_difference(version: str) -> None:
    """From the oldest that Chart.yaml admits; the newest is linted with every scenario."""
    assert _lint(scenario_values("eks"), version) == []


def test_values_that_contradict_each_other_are_refused_together() -> None:
    """What no schema can say: one message with every fault, each naming its key and what to do."""
    from tests.support.chart.render import render

    values = {
        "zones": [
            {"name": "a", "topologyZone": "z-1", "account": "one"},
            {"name": "b", "account": "one"},
            {"name": "a", "topologyZone": "z-3"},
        ],
        "simulator": {"enabled": True},
        "rollout": {"released": ["nowhere"]},
    }
    with pytest.raises(helm().HelmError) as refusal:
        render(values)
    told = str(refusal.value)
    for fault in (
        "the name a is taken",
        "b: topologyZone is missing",
        "account one and one to move are 301 connections, above its connections_max of 200",
        "simulator.enabled: nobody would use it",
        "production.host: name the external database's host",
        "production.existingSecrets.superuser: name the Secret",
        "archive.root: name a bucket",
        "there is no enabled zone nowhere",
    ):
        assert fault in told
