"""What a zone, and the nodes beside it, are asked for: section 3 of the contract, added up."""

import functools
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import pytest

from tests.support.chart.render import Pod, Rendered, render, scenario, scenario_values

GIB = 1 << 30
UNITS: dict[str, Fraction | int] = {"m": Fraction(1, 1000), "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6, "G": 10**9}  # fmt: skip


def quantity(text: str | float) -> Fraction:
    """A Kubernetes quantity as a number: cores, or bytes."""
    digits = str(text).rstrip("".join(sorted({letter for unit in UNITS for letter in unit})))
    unit = str(text)[len(digits) :]
    return Fraction(digits) * (UNITS[unit] if unit else 1)


class Ask(NamedTuple):
    """Cores and bytes."""

    cores: Fraction
    memory: Fraction


def _ask(cores: str, memory: int) -> Ask:
    return Ask(Fraction(cores), Fraction(memory))


def _sum(asks: Iterable[Ask]) -> Ask:
    return functools.reduce(lambda a, b: Ask(a.cores + b.cores, a.memory + b.memory), asks)


def _requests(pod: Pod) -> Ask:
    asked = [container["resources"]["requests"] for container in pod.spec["containers"]]
    return _sum(Ask(quantity(one["cpu"]), quantity(one["memory"])) for one in asked)


def _zone(release: Rendered, zone: str, shards: int) -> Ask:
    """Cores and bytes of one zone with so many connectors at once."""
    pods = [release.component(one, zone) for one in ("database", "registry", "poller")]
    pods += [release.component("connector", zone)] * shards
    return _sum(_requests(pod) for pod in pods)


def test_quantities() -> None:
    """Thousandths, powers of two, powers of ten, plain numbers."""
    read = [quantity(text) for text in ("250m", "2Gi", "1.5Gi", "2", 0.5, "3M")]
    assert read == [Fraction(1, 4), 2 * GIB, GIB * 3 // 2, 2, Fraction(1, 2), 3_000_000]


@pytest.mark.parametrize("zone", ["use1a", "use1b", "use1c"])
def test_a_zone_fits_one_t4g_2xlarge_in_the_middle_of_a_rollout(zone: str) -> None:
    """Two connectors, one coming, one going: at most 7 vCPU and 26 GiB."""
    asked = _zone(scenario("eks"), zone, shards=4)
    assert asked == _ask("6.25", 25 * GIB)
    assert asked.cores <= 7
    assert asked.memory <= 26 * GIB


def test_migration_fits_beside_a_zone() -> None:
    """Its Job runs while everything of the zone is there: 8 GiB less 3 and 32 GiB less 3 are what a node can give."""
    release = scenario("eks")
    job = next(pod for pod in release.pods if (pod.component, pod.zone) == ("migrate", "use1a"))
    asked = _sum([_zone(release, "use1a", shards=4), _requests(job)])
    assert asked.cores <= Fraction("7.5")
    assert asked.memory <= 28 * GIB


def test_the_central_pods_fit_one_t4g_xlarge() -> None:
    """Deduplicator 2 / 8, archiver 1 / 3, operator 0.1 / 0.25 on 4 vCPU and 16 GiB."""
    release = scenario("eks")
    asked = {
        one: _requests(release.component(one)) for one in ("deduplicator", "archiver", "operator")
    }
    assert asked["deduplicator"] == _ask("2", 8 * GIB)
    assert asked["archiver"] == _ask("1", 3 * GIB)
    assert asked["operator"] == _ask("0.1", GIB // 4)
    assert _sum(asked.values()).cores <= Fraction("3.8")
    assert _sum(asked.values()).memory <= 14 * GIB


def test_volumes_are_those_of_the_contract() -> None:
    """200 GiB gp3 a gatherer, of which 85 % may be used."""
    release = scenario("held")
    (gp3,) = release.of("StorageClass")
    assert gp3["parameters"]["type"] == "gp3"
    assert gp3["reclaimPolicy"] == "Retain"
    assert gp3["volumeBindingMode"] == "WaitForFirstConsumer"
    assert gp3["allowVolumeExpansion"] is True
    for one in release.of("StatefulSet"):
        (claim,) = one["spec"]["volumeClaimTemplates"]
        assert claim["spec"]["storageClassName"] == gp3["metadata"]["name"]
        assert claim["spec"]["resources"]["requests"]["storage"] == "200Gi"


def test_a_whole_development_cluster_is_small() -> None:
    """50m and 64 to 128 MiB each, a database 100m and 256 MiB: all of it on a machine of two cores."""
    pods = [pod for pod in scenario("kind").pods if pod.owner["kind"] not in {"Job", "Pod"}]
    pods += [pod for pod in pods if pod.component == "connector"]
    for pod in pods:
        asked = _requests(pod)
        if pod.component in {"database", "production"}:
            assert asked == _ask("0.1", GIB // 4)
        elif pod.component != "operator":
            assert asked.cores <= Fraction("0.05"), pod.name
            assert asked.memory <= GIB // 8, pod.name
    whole = _sum(_requests(pod) for pod in pods)
    assert whole.cores < Fraction("1.8")
    assert whole.memory < 5 * GIB


def test_a_database_is_tuned_from_its_limits() -> None:
    """What PostgreSQL is told grows with memory and volume; parameters of the values win."""
    base = _parameters(scenario("eks"))
    assert base["shared_buffers"] == f"{14 * 1024 // 4}MB"
    values = scenario_values("eks")
    values["zoneDefaults"] = {
        "database": {
            "resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}},
            "parameters": {"work_mem": "7MB"},
        }
    }
    other = _parameters(render(values))
    assert other["shared_buffers"] == "2048MB"
    assert other["work_mem"] == "7MB"
    assert {"max_connections", "max_wal_size", "effective_cache_size"} <= set(base)


def _parameters(release: Rendered) -> dict[str, str]:
    arguments = release.component("database", "use1a").spec["containers"][0]["args"]
    return dict(one.split("=", 1) for one in arguments if "=" in one)
