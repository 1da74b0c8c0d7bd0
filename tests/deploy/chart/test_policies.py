"""The rendered NetworkPolicies are the table of who may talk to whom, no more and no less.

The table stands here once, as data. Every ordered pair of pods, and of pods with what lies outside, is tried on every port
that anybody knows: allowed by the policies exactly where the table has a row.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.support.chart.policies import Network, Point
from tests.support.chart.render import Pod, Rendered, render, scenario, scenario_values

PORTS = (22, 53, 80, 443, 4318, 5432, 6432, 6443, 7070, 8080, 8700, 9000, 9090)
ZONE_CLIENTS = ("registry", "connector", "poller", "migrate")
SERVICES = ("registry", "connector", "poller", "deduplicator", "archiver", "operator", "simulator")
PRODUCTION_MIGRATION = "migrate-production"
OURS = (*SERVICES, "migrate", PRODUCTION_MIGRATION, "test", "crds", "database", "production", "s3")
PUBLIC, OUTSIDE = "public", "outside"


class Row(NamedTuple):
    """One line of the table.

    sources, targets: components, or `public` (addresses of the Internet), `outside` (whatever is no pod of ours), or the name
    of such a point. same_zone: both ends are of one zone.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    ports: tuple[int, ...]
    same_zone: bool = False


def table(values: Mapping[str, Any]) -> list[Row]:
    """Section 2 of the contract, as these values choose among its alternatives."""
    production = values["production"]
    database = "production" if production["enabled"] else "rds" if production["cidrs"] else OUTSIDE
    port = 5432 if production["enabled"] else production["port"]
    rows = [
        Row(ZONE_CLIENTS, ("database",), (5432,), same_zone=True),
        Row(("deduplicator", "operator", "test"), ("database",), (5432,)),
        Row(("deduplicator", "archiver", PRODUCTION_MIGRATION, "test"), (database,), (port,)),
        Row(("operator", "crds"), (OUTSIDE,), (443, 6443)),
        Row(("test",), SERVICES, (8080,)),
        Row(("prometheus",), SERVICES, (9090,)),
    ]
    sources = ("registry", "connector", "poller")
    if values["exchange"]["restUrl"]:
        rows.append(Row(sources, (OUTSIDE,), (8700,)))
    if values["simulator"]["enabled"]:
        rows.append(Row(sources, ("simulator",), (8700,)))
    if values["exchange"]["environment"] != "simulator":
        rows.append(Row(sources, (PUBLIC,), (443,)))
    if values["archive"]["endpoint"]:
        rows.append(Row(("archiver",), (OUTSIDE,), (9000,)))
    elif values["s3server"]["enabled"]:
        rows.append(Row(("archiver",), ("s3",), (7070,)))
    else:
        rows += [Row(("archiver",), (OUTSIDE,), (443,)), Row(("archiver",), ("identity",), (80,))]
    rows.append(Row(OURS, (OUTSIDE,), (53, *((4318,) if values["otlp"]["endpoint"] else ()))))
    return rows


class End(NamedTuple):
    """A point of the network, and what the table calls it."""

    point: Point
    name: str
    zone: str = ""
    also: frozenset[str] = frozenset()


def _ends(release: Rendered) -> list[End]:
    ends = [_pod(pod, number) for number, pod in enumerate(release.pods)]
    labels = next(end for end in ends if end.name == "connector").point.labels
    outside = frozenset({OUTSIDE})
    return [
        *ends,
        End(_prometheus(release.values["monitoring"]["from"][0]), "prometheus", also=outside),
        End(Point("stranger", "10.244.9.2", {"app": "web"}), "stranger", also=outside),
        # Another namespace's pod that bears a connector's labels.
        End(Point("impostor", "10.244.9.3", labels, "default"), "impostor", also=outside),
        End(Point("internet", "198.51.100.7"), "internet", also=outside | {PUBLIC}),
        End(Point("private", "10.77.0.5"), "private", also=outside),
        End(Point("rds", "10.0.50.9"), "rds", also=outside),
        End(Point("kubernetes", "10.99.0.1"), "kubernetes", also=outside),
        End(Point("identity", "169.254.170.23"), "identity", also=outside),
        End(Point("metadata", "169.254.169.254"), "metadata", also=outside),
    ]


def _prometheus(peer: Mapping[str, Any]) -> Point:
    """A pod that is just what monitoring.from names."""
    labels = peer.get("podSelector", {}).get("matchLabels", {"app": "prometheus"})
    if "namespaceSelector" not in peer:
        return Point("prometheus", "10.244.9.1", labels)
    place = peer["namespaceSelector"]["matchLabels"]
    return Point("prometheus", "10.244.9.1", labels, "elsewhere", place)


def _pod(pod: Pod, number: int) -> End:
    ports = {p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", [])}
    point = Point(pod.name, f"10.244.1.{number}", pod.labels, ports=ports)
    name = pod.component if pod.component != "migrate" or pod.zone else PRODUCTION_MIGRATION
    return End(point, name, pod.zone)


def _says(rows: list[Row], source: End, target: End, port: int) -> bool:
    return any(
        source.name in row.sources
        and port in row.ports
        and (target.name in row.targets or target.also & set(row.targets))
        and (source.zone == target.zone or not row.same_zone)
        for row in rows
    )


def _differences(release: Rendered, rows: list[Row]) -> set[tuple[str, str, int]]:
    """Connections on which policies and table disagree."""
    network, ends = Network(release.of("NetworkPolicy")), _ends(release)
    wrong = set()
    for source in ends:
        for target in ends:
            if source is target or not (source.name in OURS or target.name in OURS):
                continue
            for port in PORTS:
                if network.allows(source.point, target.point, port) is not _says(rows, source, target, port):  # fmt: skip
                    wrong.add((source.point.name, target.point.name, port))
    return wrong


@pytest.mark.parametrize("name", ["eks", "everything", "held", "kind", "monitoring", "one-zone"])
def test_the_policies_are_the_table(name: str) -> None:
    """Every ordered pair, every port, both ways: allowed if and only if the table says so."""
    release = scenario(name)
    components = {pod.component for pod in release.pods}
    assert {"database", "connector", "deduplicator", "migrate", "test", "crds"} <= components
    assert _differences(release, table(release.values)) == set()


@pytest.mark.parametrize("said", ["restUrl", "wsUrl"])
def test_an_address_that_is_not_said_is_the_environments_own(said: str) -> None:
    """One of the exchange's two addresses alone: its port, and where the other one is by default."""
    url = {"restUrl": "https://proxy.example.com:8443/v2", "wsUrl": "wss://proxy.example.com:8443/ws"}[said]  # fmt: skip
    for name, beside in (("eks", ("internet", 443)), ("kind", ("simulator", 8700))):
        values = scenario_values(name)
        values.setdefault("exchange", {})[said] = url
        release = render(values)
        network, ends = Network(release.of("NetworkPolicy")), _ends(release)
        (zone, *_) = release.named("Gatherer")
        (connector,) = [end for end in ends if (end.name, end.zone) == ("connector", zone)]
        reached = {
            (end.name, port)
            for end in ends
            for port in (443, 8443, 8700)
            if end.name in ("internet", "private", "simulator", "production")
            and network.allows(connector.point, end.point, port)
        }
        assert reached == {beside, ("internet", 8443), ("private", 8443)}


def test_dns_is_asked_over_both_protocols() -> None:
    """UDP first, TCP for long answers; nothing else over UDP."""
    release = scenario("eks")
    network, ends = Network(release.of("NetworkPolicy")), _ends(release)
    (resolver,) = [end for end in ends if end.name == "private"]
    for end in (one for one in ends if one.name in OURS):
        allowed = [p for p in PORTS if network.allows(end.point, resolver.point, p, "UDP")]
        assert allowed == [53], end.point.name


def test_each_row_of_the_table_is_needed_and_each_policy_too() -> None:
    """The comparison can fail: without any one row, and without any one policy, something differs."""
    release = scenario("one-zone")
    rows = table(release.values)
    for row in rows:
        if set(row.targets) & {PUBLIC}:
            continue
        assert _differences(release, [one for one in rows if one is not row]), row
    for policy in release.of("NetworkPolicy"):
        left = tuple(one for one in release.objects if one is not policy)
        thinner = release._replace(objects=left)
        assert _differences(thinner, rows), policy["metadata"]["name"]


def test_the_hook_may_run_before_its_upgrades_policies() -> None:
    """Its policy is there while crds.upgrade is false: the upgrade that sets it runs the hook first."""
    before, hook = scenario_values("eks"), scenario("eks").component("crds").labels
    before["crds"] = {"upgrade": False}
    release = render(before)
    assert "crds" not in {pod.component for pod in release.pods}
    point, api = Point("hook", "10.244.1.99", hook), Point("kubernetes", "10.99.0.1")
    network = Network(release.of("NetworkPolicy"))
    assert [p for p in PORTS if network.allows(point, api, p)] == [53, 443, 6443]


def test_without_policies_everything_is_open() -> None:
    """The switch renders none; the evaluator then allows all, as a cluster does."""
    values = scenario_values("eks")
    values["networkPolicy"] = {"enabled": False}
    release = render(values)
    assert release.of("NetworkPolicy") == []
    network, ends = Network([]), _ends(release)
    stranger = next(end for end in ends if end.name == "stranger")
    assert all(network.allows(stranger.point, end.point, 5432) for end in ends)
