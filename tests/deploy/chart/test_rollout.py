"""Zone by zone in one release: what a held zone renders, and that nothing released waits for it."""

import functools
from typing import Any

from tests.support.chart.render import Rendered, render, scenario, scenario_values


def _paused(release: Rendered) -> dict[str, set[Any]]:
    """Zone -> whether its Deployments are paused, and the partition of its database."""
    found: dict[str, set[Any]] = {}
    for one in release.of("Deployment", "StatefulSet"):
        zone = one["metadata"]["labels"].get("kalshi-data.io/zone", "")
        held = found.setdefault(zone, set())
        if one["kind"] == "Deployment":
            held.add("paused" if one["spec"].get("paused") else "free")
        elif zone:
            held.add(one["spec"]["updateStrategy"]["rollingUpdate"]["partition"])
    return found


@functools.cache
def _released(*names: str | None) -> Rendered:
    """With these zones released; None: all of them."""
    values = scenario_values("held")
    values["rollout"] = {"released": None if None in names else list(names)}
    return render(values)


def test_a_held_zone_is_paused_whole() -> None:
    """Deployments paused, the database behind a partition above its only pod; the released zone and the centre are not."""
    free, held = {"free", 0}, {"paused", 1}
    assert _paused(scenario("held")) == {"": {"free"}, "a": free, "b": held, "c": held}
    assert _paused(_released()) == {"": {"free"}, "a": held, "b": held, "c": held}
    assert _paused(_released(None)) == {"": {"free"}, "a": free, "b": free, "c": free}


def test_holding_changes_nothing_but_the_hold() -> None:
    """Pod templates, configurations and services of a held zone are those of the new version, to be taken up as they are."""
    held, free = _released(), _released(None)
    for kind in ("Deployment", "StatefulSet"):
        for name, one in free.named(kind).items():
            template = held.named(kind)[name]["spec"]["template"]
            assert template == one["spec"]["template"], name
    for kind in ("ConfigMap", "Service", "NetworkPolicy", "Gatherer", "ServiceAccount"):
        assert held.named(kind) == free.named(kind)


def test_schemas_grow_before_the_zones_follow() -> None:
    """The migration of a held zone is made too; the central pods' configuration is that of all zones."""
    release = scenario("held")
    jobs = {name.rsplit("-", 1)[0] for name in release.named("Job")}
    assert {f"kalshi-data-migrate-{one}" for one in ("a", "b", "c", "production")} <= jobs


def test_the_number_of_connectors_is_the_gatherers() -> None:
    """Two where nobody says and no cluster is asked; what values say otherwise; the Deployment itself names none."""
    shards = {n: g["spec"]["shards"] for n, g in scenario("everything").named("Gatherer").items()}
    assert shards == {"z1": 3, "z2": 5, "z3": 3}
    assert {g["spec"]["shards"] for g in scenario("eks").of("Gatherer")} == {2}


def test_a_zone_that_is_taken_out_leaves_its_volume() -> None:
    """Disabled: no pod, no resource, no address in the merge's configuration; claims are never the release's to delete."""
    release = scenario("bare")
    assert set(release.named("Gatherer")) == {"a"}
    assert {pod.zone for pod in release.pods} - {""} == {"a"}
    assert release.of("PersistentVolumeClaim") == []


def test_the_notes_say_what_to_look_at() -> None:
    """Each zone's check by name, the zone-by-zone upgrade with every step, how to scale."""
    notes = scenario("eks").notes
    for zone in ("use1a", "use1b", "use1c"):
        assert f"kalshi-data-registry-{zone}" in notes
    assert "kalshi-data rollout" in notes
    assert "rollout.released=" in notes
    assert "scale gatherer/use1a" in notes
    assert "helm test" in notes
    assert "helm rollback kalshi-data REVISION" in notes
    assert "get jobs" in notes
    assert "ALTER EXTENSION timescaledb UPDATE" in notes
    assert "ALTER EXTENSION" not in scenario("kind").notes
    kept = "Where database.image became a newer TimescaleDB, keep that image"
    assert kept in notes and kept not in scenario("kind").notes
    bare = scenario("bare").notes
    assert "kubectl apply --server-side" in bare
    assert "helm test" not in bare
    assert "scale gatherer/" not in bare
    assert "scale deployment/kalshi-data-connector-a" in bare
