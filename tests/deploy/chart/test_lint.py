"""helm's own opinion of the chart."""

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
        "account one and one to move are 301 connections, above its connections_max of 200",
        "simulator.enabled: nobody would use it",
        "production.host: name the external database's host",
        "production.existingSecrets.superuser: name the Secret",
        "archive.root: name a bucket",
        "there is no enabled zone nowhere",
    ):
        assert fault in told
