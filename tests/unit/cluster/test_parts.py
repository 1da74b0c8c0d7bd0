"""The parts of the cluster's scenarios that need no cluster, by what they must not overlook."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.marketdata.units import SECOND
from services.local.topology import merged
from tests.cluster.errors import CommandFailed, NotInTime, Skipped
from tests.cluster.faults import Kind, NoFaults, Testbed, address_in, choose, zones_of
from tests.cluster.figures import at_least, at_most, equal, failures, of_verdict
from tests.cluster.helm import major_of
from tests.cluster.images import DATABASE, RECIPES, S3, SERVICES, Images, digest
from tests.cluster.kube import Object, is_ready
from tests.cluster.names import Names
from tests.cluster.referee import Case, Verdict, pod_of, policies_of
from tests.cluster.shell import run
from tests.cluster.values import DEVELOPMENT, release_values, slots_of
from tests.cluster.waiting import until

IMAGES = Images("", {SERVICES: "t1", DATABASE: "t2", S3: "t3"})
LABELS = ["zone-1", "zone-2", "zone-3"]


def node(name: str, zone: str, *effects: str) -> Object:
    return {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone} if zone else {}},
        "spec": {"taints": [{"effect": effect} for effect in effects]},
    }


# --- the cluster ---


def test_the_first_three_zones_with_a_node_that_takes_pods() -> None:
    """A control plane is none of them; of two nodes in a zone the first one stands for it."""
    nodes = [
        node("control", "z0", "NoSchedule"), node("n3", "z3"), node("n1", "z1"), node("n1b", "z1"), node("n2", "z2"), node("n4", "z4"),
    ]  # fmt: skip
    assert zones_of(nodes) == [("z1", "n1"), ("z2", "n2"), ("z3", "n3")]


def test_two_zones_are_too_few() -> None:
    """Nothing is played where three zones cannot be; the message says what there is."""
    with pytest.raises(Skipped, match=r"\['z1', 'z2'\]"):
        zones_of([node("n1", "z1"), node("n2", "z2"), node("n3", "")])


def test_one_adapter_for_each_kind_of_cluster() -> None:
    """The testbed when its script is named, kind's nodes where there is docker, else nobody breaks anything."""
    assert isinstance(choose({"TESTBED": "/x"}, "kind-a", [], True), Testbed)
    assert isinstance(choose({}, "kind-a", [], True), Kind)
    assert isinstance(choose({}, "kind-a", [], False), NoFaults)
    assert isinstance(choose({}, "eks", [], True), NoFaults)


async def test_nobody_breaks_what_cannot_be_broken() -> None:
    """Each door says so by itself: a scenario that comes here all the same is skipped, not held."""
    nobody = NoFaults()
    for broken in (
        nobody.kill(0),
        nobody.start(0),
        nobody.cut(0),
        nobody.heal(0),
        nobody.stop_api(),
        nobody.start_api(),
        nobody.kill_process(0, "x"),
    ):
        with pytest.raises(Skipped):
            await broken


async def test_the_testbed_is_told_by_letters(tmp_path: Path) -> None:
    """Zone 0 is a, 2 is c; the API has its own verbs."""
    script, log = tmp_path / "testbed", tmp_path / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >>{log}\n')
    script.chmod(0o755)
    faults = Testbed(str(script))
    await faults.kill(0)
    await faults.heal(2)
    await faults.stop_api()
    await faults.image("n:t", Path("/c"), ["--target", "x"], 5)
    assert log.read_text().splitlines() == ["zone kill a", "zone heal c", "api stop", "image library/n:t /c --skip-unused-stages=false --target x"]  # fmt: skip


def test_a_node_of_kind_comes_back_under_its_address() -> None:
    """Where docker says it."""
    inspected = {"NetworkSettings": {"Networks": {"kind": {"IPAddress": "172.18.0.3"}}}}
    assert address_in(inspected) == "172.18.0.3"


# --- programs ---


async def test_a_program_that_fails_is_quoted() -> None:
    """Its status and its last words are in the error."""
    with pytest.raises(CommandFailed, match="status 3: alas"):
        await run("sh", "-c", "echo alas >&2; exit 3")


async def test_a_program_that_hangs_is_ended() -> None:
    """In time, with whatever it started."""
    with pytest.raises(CommandFailed, match="not done in 0 s"):
        await run("sh", "-c", "sleep 60; true", timeout_s=0.05)


async def test_what_never_holds_says_what_was_seen_last() -> None:
    """A look that fails is one that does not hold."""
    seen = iter([1, 2])

    async def look() -> int:
        try:
            return next(seen)
        except StopIteration:
            raise CommandFailed("gone") from None

    with pytest.raises(NotInTime, match="seven; last seen: gone"):
        await until(look, lambda value: value == 7, 0.05, "seven", every_s=0.01)


@pytest.mark.parametrize(
    ("said", "major"), [("v3.22.0+g1", 3), ("v4.3.1", 4), ("version.BuildInfo{}", None)]
)
def test_helm_says_which_it_is(said: str, major: int | None) -> None:
    """By its short version."""
    assert major_of(said) == major


def test_a_pod_that_goes_is_not_ready() -> None:
    """Also when its containers still say so."""
    pod: Object = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert is_ready(pod)
    assert not is_ready(pod | {"metadata": {"deletionTimestamp": "now"}})
    assert not is_ready(pod | {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})


# --- the release ---


def test_central_things_are_in_the_last_zone() -> None:
    """Simulator, production, S3 server and deduplicator, whatever the zones are called."""
    values = release_values(LABELS, IMAGES)
    for name in ("simulator", "production", "s3server", "deduplicator"):
        assert values[name]["nodeSelector"] == {"topology.kubernetes.io/zone": "zone-3"}
    assert [(z["name"], z["topologyZone"], z["enabled"]) for z in values["zones"]] == [
        ("a", "zone-1", True), ("b", "zone-2", True), ("c", "zone-3", True),
    ]  # fmt: skip


def test_one_zone_and_four() -> None:
    """What is not enabled stays in the list; a fourth gatherer lies in the first zone."""
    assert [z["enabled"] for z in release_values(LABELS, IMAGES, ("a",))["zones"]] == [True, False, False]  # fmt: skip
    four = release_values(LABELS, IMAGES, ("a", "b", "c", "d"))["zones"]
    assert four[3] == {"name": "d", "topologyZone": "zone-1", "enabled": True}


def test_the_exchange_is_as_lively_as_the_scenarios_want_it() -> None:
    """2,000 markets, a new one every five seconds, and more than 300 messages a second with the tickers."""
    values = merged(yaml.safe_load(DEVELOPMENT.read_text()), release_values(LABELS, IMAGES))
    told = values["simulator"]["settings"]
    assert (told["markets"], told["new_market_every_s"]) == (2_000, 5)
    assert told["rate"] >= 270
    assert slots_of(values) == 12
    assert "shards" not in values["zoneDefaults"].get("connectors", {})


def test_every_image_bears_the_tag_that_says_what_is_in_it(tmp_path: Path) -> None:
    """One byte more is another tag; a cache is nothing."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("a")
    before = digest(tmp_path, ["code"])
    (tmp_path / "code/__pycache__").mkdir()
    (tmp_path / "code/__pycache__/a.pyc").write_text("x")
    assert digest(tmp_path, ["code"]) == before
    (tmp_path / "code/a.py").write_text("ab")
    assert digest(tmp_path, ["code"]) != before


def test_what_the_recipes_name_is_there() -> None:
    """A file that is not copied any more would be hashed as nothing."""
    for recipe in RECIPES:
        assert [name for name in recipe.contents if not (recipe.context / name).exists()] == []
    values = IMAGES.with_services("t9").values()
    assert values["image"]["tag"] == "t9"
    assert values["zoneDefaults"]["database"]["image"] == {"repository": DATABASE, "tag": "t2"}


def test_names_are_the_charts() -> None:
    """With and without the chart's name in the release's."""
    assert Names("kalshi-data").object("registry", "a") == "kalshi-data-registry-a"
    assert Names("x").database_pod("production") == "x-kalshi-data-production-0"


# --- the verdict ---


def told(holds: bool = True, **gaps: int) -> dict[str, Any]:
    table = {"truth": 10, "stored": 9, "missing": 1, "extra": 0, "unsound": 0}
    return {
        "holds": holds, "reasons": [] if holds else ["alas"], "tables": {"trades": table, "tickers": table},
        "unplanned_gaps": {
            who: {"count": count, "longest": [["M", 0, 2 * SECOND]] * min(count, 5)} for who, count in gaps.items()
        },
        "snapshots": [1, 1], "books": [1, 1, 0],
    }  # fmt: skip


def test_a_case_is_met_only_without_a_gap_where_none_may_be() -> None:
    """A zone's own gap counts only where the scenario says so."""
    verdict = Verdict(told(production=0, a=1, b=0), (0, 60 * SECOND))
    assert Case(0).is_met_by(verdict)
    assert not Case(0, no_gap=("production", "a")).is_met_by(verdict)
    assert not Case(0).is_met_by(Verdict(told(False, production=0), (0, 1)))
    assert failures(of_verdict(verdict, Case(0, no_gap=("a",)))) == [
        "gaps of a: 1 M 2.0 s, wanted 0"
    ]


def test_what_was_done_to_zones_is_said_to_the_judge() -> None:
    """Absences must show, troubles may."""
    case = Case(1, away=[("a", (2, 3))], trouble=[("b", (4, 5))])
    assert case.words() == ["--away", "a=2..3", "--trouble", "b=4..5"]


def test_figures_hold_or_do_not() -> None:
    """Each against its bound."""
    figures = [equal("x", [1], [1]), at_least("y", 2, 2), at_most("z", 2.5, 2, " s")]
    assert failures(figures) == ["z: 2.5 s, wanted <= 2 s"]


def deployment(name: str, *volumes: str) -> Object:
    container = {
        "name": name, "image": "i", "args": ["run", name], "ports": [1], "livenessProbe": {}, "resources": {},
        "volumeMounts": [{"name": volume, "mountPath": f"/{volume}"} for volume in volumes],
    }  # fmt: skip
    listed = [{"name": volume, "emptyDir": {}} for volume in volumes]
    spec = {
        "serviceAccountName": f"kalshi-data-{name}",
        "containers": [container],
        "volumes": listed,
    }
    return {"spec": {"template": {"spec": spec}}}


def test_the_referee_sees_what_both_see_and_is_neither() -> None:
    """Both pods' volumes, each once; no service account, no probes, no label that a policy or Service of the release knows."""
    deduplicator = deployment("deduplicator", "config", "tmp", "production", "gatherer-a")
    pod = pod_of(deduplicator, deployment("archiver", "config", "tmp", "production", "s3"))
    (container,) = pod["spec"]["containers"]
    names = ["config", "tmp", "production", "gatherer-a", "s3"]
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == names
    assert [mount["name"] for mount in container["volumeMounts"]] == names
    assert container["command"] == ["sleep", "infinity"]
    assert {"args", "ports", "livenessProbe"} & set(container) == set()
    assert "serviceAccountName" not in pod["spec"]
    assert not [key for key in pod["metadata"]["labels"] if key.startswith("app.kubernetes.io")]
    assert deduplicator["spec"]["template"]["spec"]["containers"][0]["name"] == "deduplicator"


def test_the_referees_policies_only_open_its_own_doors() -> None:
    """One for each component it asks, to its port, from it alone."""
    found = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: policy["spec"][
            "ingress"
        ]
        for policy in policies_of(Names("kalshi-data"))
    }
    assert set(found) == {"database", "production", "simulator", "s3"}
    assert [rule["ports"][0]["port"] for rule in found["s3"]] == [7070]
    assert json.dumps(found).count('{"kalshi-data.io/referee": "yes"}') == len(found)
