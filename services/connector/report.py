"""What the connector says of itself: /health, readiness and gauges."""

from collections import Counter
from typing import Any

from libs.store.waiting import first_of
from services.connector.slot import Slot, Wiring
from services.connector.tasks import Shard

SETTLED_S = 10.0


def describe(shard: Shard, wiring: Wiring) -> None:
    """Put the connector's figures into /health."""
    health, holdings = shard.runtime.health, shard.holdings
    pipelines = list(wiring.pipelines.values())

    def rows() -> dict[str, int]:
        total: Counter[str] = Counter()
        for pipeline in pipelines:
            total += pipeline.written
        return dict(total)

    def lag() -> float | None:
        return max((p.lag_ms for p in pipelines if p.lag_ms is not None), default=None)

    health.set("shard", shard.name)
    health.set("connections", lambda: sum(s.session is not None for s in holdings.slots.values()))
    health.set(
        "frames", lambda: sum(s.frames for s in holdings.slots.values()) + holdings.frames_before
    )
    health.set("rows", rows)
    health.set("lag_ms", lag)
    health.set(
        "buffer_rows", lambda: {p.family.value: p.buffer.rows + p.batcher.count for p in pipelines}
    )
    health.set("gaps", lambda: rows().get("gaps", 0))
    health.set("noted", lambda: dict(wiring.noted))
    health.set("lanes", lambda: {p.family.value: _lane(p.lane) for p in pipelines})
    health.set(
        "slots",
        lambda: {name: _slot(s, holdings.states.get(name)) for name, s in holdings.slots.items()},
    )
    health.set("subscriptions", lambda: subscriptions(list(holdings.slots.values())))
    health.set("planner", lambda: shard.planner.epoch)


def _lane(lane: Any) -> dict[str, Any]:
    return {"lane": str(lane.lane), "confirmed": lane.confirmed}


def _slot(slot: Slot, state: str | None) -> dict[str, Any]:
    session = slot.session
    return {
        "state": state,
        "heard": slot.is_complete,
        "frames": slot.frames,
        "error": slot.error,
        "connection": str(session.connection) if session else None,
    }


def subscriptions(slots: list[Slot]) -> dict[str, int]:
    """Markets and channels wanted and acknowledged over all slots."""
    wanted = acked = 0
    for slot in slots:
        if slot.session is not None:
            wanted += slot.session.wanted_count
            acked += slot.session.acked_count
    return {"wanted": wanted, "acked": acked}


async def keep_reporting(shard: Shard) -> None:
    """Refresh gauges and readiness every second until the end."""
    clock = shard.runtime.clock
    started = clock.monotonic()
    while not shard.ended.is_set():
        refresh(shard, clock.monotonic() - started)
        await first_of(shard.ended, timeout_s=1.0)


def refresh(shard: Shard, up_for_s: float) -> None:
    """Set gauges and readiness; called every second.

    A new shard is ready only while no other drains, so that a rollout goes shard by shard; once it was ready after its
    first seconds, readiness means that every owned slot is heard.
    """
    holdings, metrics = shard.holdings, shard.runtime.metrics
    slots = list(holdings.slots.values())
    counts = subscriptions(slots)
    metrics.subscriptions_wanted.set(counts["wanted"])
    metrics.subscriptions_acked.set(counts["acked"])
    metrics.slots_owned.set(len(slots))
    metrics.slots_live.set(holdings.live)
    if shard.draining:
        return
    if not shard.settled and up_for_s >= SETTLED_S and shard.registered and not shard.others_drain:
        shard.settled = True
    if not shard.registered:
        shard.runtime.health.set_ready(False, "the control tables were not reached yet")
    elif not shard.settled and shard.others_drain:
        shard.runtime.health.set_ready(False, "another shard drains")
    elif holdings.live < len(slots):
        waiting = [slot.name for slot in slots if not slot.is_complete]
        shard.runtime.health.set_ready(False, f"not heard: {', '.join(waiting[:5])}")
    else:
        shard.runtime.health.set_ready(True)
