"""What a Gatherer's status says: counts of slots and shards, and four conditions. Pure; times are texts handed in.

A condition that cannot be judged now keeps its last word, so that a restart of the operator shows no storm; where the
database is away nothing else is known, and the conditions say Unknown.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from libs.flow.assignment import State
from libs.kube.client import Json
from libs.store.planner import ZoneState
from libs.store.planning import Look
from services.operator.resource import Gatherer

READY, BALANCED, FROZEN, DATABASE = "Ready", "Balanced", "Frozen", "DatabaseReachable"
TYPES: Final = (READY, BALANCED, FROZEN, DATABASE)


class SlotCounts(NamedTuple):
    """Slots of a zone. live: heard by a living shard; moving: rows of several; unassigned: of none."""

    total: int
    live: int
    moving: int
    unassigned: int


class Fault(NamedTuple):
    """Why a zone's database cannot be used: a reason in one word, and the message."""

    reason: str
    message: str


class Verdict(NamedTuple):
    """What a condition says. status: True, False or Unknown."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a zone.

    Attributes:
        fault: of its database, as of the last look; None when it answered.
        look: the last look that answered; None before the first.
        epoch: of our planning; None while it is not ours.
        ready_pods: names of ready pods; None when the API has not said yet. selector: of the zone's pods.
        warning: what the administrator should know besides; empty for nothing.
    """

    fault: Fault | None = None
    look: Look | None = None
    epoch: int | None = None
    ready_pods: Collection[str] | None = None
    selector: str = ""
    warning: str = ""


def count_slots(slots: Iterable[str], zone: ZoneState) -> SlotCounts:
    """Count a zone's slots by what living shards do with them."""
    alive = {shard.name for shard in zone.shards if shard.is_alive}
    rows = [row for row in zone.rows if row.shard in alive]
    owners = Counter(row.slot for row in rows)
    heard = {row.slot for row in rows if row.state is not State.ASSIGNED}
    slots = set(slots)
    return SlotCounts(
        total=len(slots),
        live=len(slots & heard),
        moving=sum(owners[slot] > 1 for slot in slots),
        unassigned=sum(owners[slot] == 0 for slot in slots),
    )


def members(zone: ZoneState) -> set[str]:
    """Names of the shards that live and are not draining."""
    return {shard.name for shard in zone.shards if shard.is_member}


def status_of(gatherer: Gatherer, seen: Seen, now: str) -> Json:
    """Return the status as it is to be: what is not known now stays as the object has it.

    Args:
        now: RFC 3339, for conditions that change.
    """
    status: Json = {**gatherer.status, "observedGeneration": gatherer.generation}
    if seen.epoch is not None:
        status["epoch"] = seen.epoch
    if seen.selector:
        status["selector"] = seen.selector
    counts = None
    if seen.look is not None and seen.fault is None:
        counts = count_slots(gatherer.slots.names(), seen.look.zone)
        living = members(seen.look.zone)
        status |= {"slots": counts._asdict(), "shards": len(living)}
        if seen.ready_pods is not None:
            status["readyShards"] = len(living.intersection(seen.ready_pods))
    status["conditions"] = _conditions(gatherer, _verdicts(seen, counts), now)
    return status


def _verdicts(seen: Seen, counts: SlotCounts | None) -> dict[str, Verdict]:
    if seen.fault is not None:
        unknown = Verdict("Unknown", "DatabaseAway", "the zone's database does not say")
        away = Verdict("False", seen.fault.reason, seen.fault.message)
        return {DATABASE: away, READY: unknown, BALANCED: unknown, FROZEN: unknown}
    if seen.look is None or counts is None:
        return {}
    found = {
        DATABASE: Verdict("True", "Answers", ""),
        READY: _ready(counts, seen.warning),
    }
    if seen.look.plan is not None:
        found[BALANCED] = _balanced(seen.look, counts)
        found[FROZEN] = (
            Verdict("True", "MostShardsVanished", "their slots wait for them, at most 120 s")
            if seen.look.plan.is_frozen
            else Verdict("False", "ShardsThere", "")
        )
    return found


def _ready(counts: SlotCounts, warning: str) -> Verdict:
    if counts.live == counts.total:
        return Verdict("True", "EverySlotLive", warning)
    missing = counts.total - counts.live
    words = f"{missing} of {counts.total} slots are not heard" + (f"; {warning}" if warning else "")
    return Verdict("False", "SlotsNotLive", words)


def _balanced(look: Look, counts: SlotCounts) -> Verdict:
    """Whether every slot is where it should be, and nothing is on its way."""
    settled = all(row.state is State.LIVE for row in look.zone.rows)
    if look.is_settled and settled and not counts.unassigned:
        return Verdict("True", "NothingToMove", "")
    return Verdict("False", "SlotsMove", "slots are on their way, or wait for room to move")


def _conditions(gatherer: Gatherer, verdicts: dict[str, Verdict], now: str) -> list[Json]:
    """Lay the verdicts over the object's conditions; a transition is a change of status, as everywhere in Kubernetes."""
    before = {one["type"]: one for one in gatherer.status.get("conditions") or ()}
    found = []
    for kind in TYPES:
        old = before.get(kind)
        verdict = verdicts.get(kind)
        if verdict is None:
            if old is not None:
                found.append(old)
            continue
        since = old["lastTransitionTime"] if old and old["status"] == verdict.status else now
        found.append(
            {"type": kind, **verdict._asdict(), "observedGeneration": gatherer.generation}
            | {"lastTransitionTime": since}
        )
    return found
