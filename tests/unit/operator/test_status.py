"""What a Gatherer's status says, as a function of what is seen."""

from dataclasses import replace
from typing import Any

import pytest

from libs.flow.assignment import Plan, Row, Shard, State
from libs.kube.client import Json
from libs.kube.cluster import Pod
from libs.store.planner import Planner, ZoneState
from libs.store.planning import Look
from services.operator.errors import GathererInvalid
from services.operator.resource import Gatherer, parse_gatherer
from services.operator.status import Fault, Seen, count_slots, status_of
from services.operator.zone import Zone, newest_template

SPEC: Json = {
    "zone": "a",
    "shards": 2,
    "deployment": "connectors",
    "slots": {"orderbook": 2, "ticker": 1, "trade": 1, "lifecycle": 1},
    "database": {"host": "db", "name": "kalshi", "secretName": "planner"},
}
META = {"name": "a", "uid": "u", "generation": 3}
GATHERER = parse_gatherer({"metadata": META, "spec": SPEC})
NAMES = GATHERER.slots.names()
LIVING = (Shard("p1", is_alive=True), Shard("p2", is_alive=True))


def everything_live(**changed: Any) -> ZoneState:
    rows = tuple(Row(slot, f"p{1 + n % 2}", State.LIVE) for n, slot in enumerate(NAMES))
    return replace(ZoneState(LIVING, rows), **changed)


def settled(zone: ZoneState | None = None) -> Look:
    return Look(zone or everything_live(), Plan(), written=True)


def said(status: Json) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def told(gatherer: Gatherer, status: Json) -> Gatherer:
    return replace(gatherer, status=status)


def test_a_zone_whose_slots_are_all_heard_is_ready_and_balanced() -> None:
    """With counts, the generation that was seen, the epoch, and pods that are ready among those that live."""
    seen = Seen(look=settled(), epoch=7, ready_pods={"p2", "p9"}, selector="a=b")
    status = status_of(GATHERER, seen, "2026-01-01T00:00:00Z")
    conditions = status.pop("conditions")
    assert status == {
        "observedGeneration": 3,
        "epoch": 7,
        "shards": 2,
        "readyShards": 1,
        "selector": "a=b",
        "slots": {"total": 5, "live": 5, "moving": 0, "unassigned": 0},
    }
    assert said({"conditions": conditions}) == {
        "Ready": ("True", "EverySlotLive"),
        "Balanced": ("True", "NothingToMove"),
        "Frozen": ("False", "ShardsThere"),
        "DatabaseReachable": ("True", "Answers"),
    }
    assert {one["observedGeneration"] for one in conditions} == {3}


def test_slots_are_counted_by_what_the_living_do_with_them() -> None:
    """A row of a dead shard counts for nothing; one that is being released is still heard."""
    shards = (*LIVING, Shard("gone", is_alive=False))
    rows = (
        Row("orderbook/0", "p1", State.LIVE),
        Row("orderbook/0", "p2", State.ASSIGNED),
        Row("orderbook/1", "p1", State.RELEASING),
        Row("ticker/0", "gone", State.LIVE),
        Row("trade/0", "p2", State.ASSIGNED),
        Row("stray/0", "p2", State.LIVE),
    )
    assert count_slots(NAMES, ZoneState(shards, rows)) == (5, 2, 1, 2)


def test_moves_are_not_balance_and_missing_slots_are_not_ready() -> None:
    """Each is said by its own condition."""
    moving = everything_live(rows=(*everything_live().rows, Row(NAMES[0], "p2", State.ASSIGNED)))
    found = said(status_of(GATHERER, Seen(look=settled(moving)), "t"))
    assert (found["Ready"][0], found["Balanced"][0]) == ("True", "False")
    missing = everything_live(rows=everything_live().rows[1:])
    status = status_of(GATHERER, Seen(look=settled(missing), warning="account x"), "t")
    assert said(status)["Ready"] == ("False", "SlotsNotLive")
    (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
    assert ready["message"] == "1 of 5 slots are not heard; account x"
    frozen = Look(everything_live(), Plan(is_frozen=True), written=True)
    assert said(status_of(GATHERER, Seen(look=frozen), "t"))["Frozen"][0] == "True"


def test_a_database_that_is_away_is_said_and_nothing_else_is_claimed() -> None:
    """Counts stay what they were, conditions are Unknown, and the reason stands where it belongs."""
    before = status_of(GATHERER, Seen(look=settled(), epoch=1), "then")
    seen = Seen(fault=Fault("NoAnswer", "refused"), look=settled())
    status = status_of(told(GATHERER, before), seen, "now")
    assert status["slots"] == before["slots"]
    assert said(status) == {
        "Ready": ("Unknown", "DatabaseAway"),
        "Balanced": ("Unknown", "DatabaseAway"),
        "Frozen": ("Unknown", "DatabaseAway"),
        "DatabaseReachable": ("False", "NoAnswer"),
    }


def test_a_transition_is_a_change_of_status_and_of_nothing_else() -> None:
    """A new reason or generation keeps the time; what cannot be judged keeps its last word, so that a restart shows nothing."""
    before = status_of(GATHERER, Seen(look=settled()), "then")
    later = replace(told(GATHERER, before), generation=4)
    moving = everything_live(rows=everything_live().rows[1:])
    after = status_of(later, Seen(look=Look(moving)), "now")
    times = {one["type"]: one["lastTransitionTime"] for one in after["conditions"]}
    assert times == dict.fromkeys(("Balanced", "Frozen", "DatabaseReachable"), "then") | {
        "Ready": "now"
    }
    assert said(after)["Balanced"] == ("True", "NothingToMove")
    assert after["observedGeneration"] == 4
    assert status_of(GATHERER, Seen(), "t")["conditions"] == []


def test_who_has_nothing_new_to_say_says_the_same() -> None:
    """So that nothing is written while nothing changes."""
    seen = Seen(look=settled(), epoch=1, ready_pods=(), selector="a=b")
    before = status_of(GATHERER, seen, "then")
    assert status_of(told(GATHERER, before), seen, "now") == before


def test_a_gatherer_that_does_not_say_what_it_must_is_refused() -> None:
    """With its name and the field; the CRD lets none of these in, another version of it may."""
    without = {key: value for key, value in SPEC.items() if key != "deployment"}
    with pytest.raises(GathererInvalid, match="a: KeyError 'deployment'"):
        parse_gatherer({"metadata": META, "spec": without})
    with pytest.raises(GathererInvalid, match="a: connections_max: 5 leaves no room"):
        parse_gatherer({"metadata": META, "spec": {**SPEC, "connectionsMax": 5}})
    assert (GATHERER.account, GATHERER.slots.connections_max) == ("default", 200)
    assert GATHERER.account_connections_max == 200
    part = {"connectionsMax": 60, "accountConnectionsMax": 180}
    found = parse_gatherer({"metadata": META, "spec": {**SPEC, **part}})
    assert (found.slots.connections_max, found.account_connections_max) == (60, 180)


def pod(name: str, created: str) -> Pod:
    return Pod(name, {}, "", "", "Running", True, False, 0, created)


def test_the_newest_template_is_that_of_the_pod_made_last() -> None:
    """Not of the container that started last; pods without a lease do not count, nor does an API that says nothing."""
    pods = [pod("old", "2026-01-01T00:00:00Z"), pod("new", "2026-01-02T00:00:00Z")]
    pods.append(pod("starting", "2026-01-03T00:00:00Z"))
    assert newest_template(pods, {"old": "x", "new": "y"}) == "y"
    assert newest_template(pods, {"gone": "x"}) is None
    zone = Zone(GATHERER, Planner("operator/me"))
    assert zone.wishes().newest is None
    zone.pods, zone.look = pods, settled(everything_live(shards=(Shard("old", True, False, "x"),)))
    assert (zone.wishes().newest, zone.wishes().shards) == ("x", 2)


def test_another_operators_zone_is_its_to_tell_of() -> None:
    """A shard that stands in tells the API nothing: then we do."""
    zone = Zone(GATHERER, Planner("operator/me"))
    found = []
    for other, look, fault in (
        ("operator/other", None, None),
        ("connector-a-1", None, None),
        ("connector-a-1", settled(), None),
        ("connector-a-1", settled(), Fault("NoAnswer", "")),
    ):
        zone.planner.other, zone.look, zone.fault = other, look, fault
        found.append((zone.is_anothers, zone.is_reachable))
    assert found == [(True, True), (False, False), (False, True), (False, False)]
