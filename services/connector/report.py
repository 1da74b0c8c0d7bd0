"""What the connector says of itself: /health, readiness and gauges."""

from collections import Counter
from typing import Any

from libs.marketdata.units import SECOND
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.connector.pipeline import Pipeline
from services.connector.slot import Slot, Wiring
from services.connector.tasks import Shard

log = get_logger(__name__)

SETTLED_S = 10.0
CLOCK_STEP_S = 0.5
"""Seconds within one look that are a step: no clock is steered so fast, and reading two clocks does not take so long."""


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
    health.set("connections", lambda: sum(len(s.sessions) for s in holdings.slots.values()))
    health.set("extra_connections", lambda: wiring.extra.used)
    health.set(
        "frames", lambda: sum(s.frames for s in holdings.slots.values()) + holdings.frames_before
    )
    health.set("rows", rows)
    health.set("lag_ms", lag)
    health.set(
        "buffer_rows", lambda: {p.family.value: p.buffer.rows + p.batcher.count for p in pipelines}
    )
    health.set("buffer", lambda: {p.family.value: _buffer(p) for p in pipelines})
    health.set("gaps", lambda: rows().get("gaps", 0))
    health.set("noted", lambda: dict(wiring.noted))
    health.set("lanes", lambda: {p.family.value: _lane(p.lane) for p in pipelines})
    health.set(
        "slots",
        lambda: {
            name: portrait(s, holdings.states.get(name)) for name, s in holdings.slots.items()
        },
    )
    health.set("subscriptions", lambda: subscriptions(list(holdings.slots.values())))
    health.set("planner", lambda: shard.planner.epoch)


def _buffer(pipeline: Pipeline) -> dict[str, int]:
    buffer = pipeline.buffer
    return {
        "rows": buffer.rows,
        "bytes": buffer.size_bytes,
        "batches": len(buffer),
        "dropped_rows": buffer.drops.facts,
    }


def _lane(lane: Any) -> dict[str, Any]:
    return {"lane": str(lane.lane), "confirmed": lane.confirmed}


def portrait(slot: Slot, state: str | None) -> dict[str, Any]:
    """Describe one slot; `margin_s`: so far behind its last frame its claims end, and so long a hand-over takes at least."""
    connections = [str(part.session.connection) if part.session else None for part in slot.parts]
    return {
        "state": state,
        "heard": slot.is_complete,
        "frames": slot.frames,
        "margin_s": max((session.margin.value / SECOND for session in slot.sessions), default=None),
        "error": slot.error,
        "connection": connections[0],
        "parts": connections,
    }


def subscriptions(slots: list[Slot]) -> dict[str, int]:
    """Markets and channels wanted, connected or not, and how many of them are acknowledged and seen."""
    return {
        "wanted": sum(slot.wanted for slot in slots),
        "acked": sum(slot.acked for slot in slots),
        "seen": sum(slot.seen for slot in slots),
    }


async def keep_reporting(shard: Shard, wiring: Wiring) -> None:
    """Refresh gauges and readiness, and look at the wall clock, every second until the end."""
    clock, metrics = shard.runtime.clock, shard.runtime.metrics
    started = clock.monotonic()
    steps = ClockSteps(clock.now(), started)
    while not shard.ended.is_set():
        step_s = steps.look(clock.now(), clock.monotonic())
        if step_s:
            metrics.clock_steps_total.inc()
            log.warning("clock_set", by_s=round(step_s, 3))
        slots = list(shard.holdings.slots.values())
        late = max((part.late for slot in slots for part in slot.parts), default=0)
        metrics.ws_lateness_seconds.set(late / 1_000_000)
        metrics.ws_extra_connections.set(wiring.extra.used)
        refresh(shard, clock.monotonic() - started)
        await first_of(shard.ended, timeout_s=1.0)


class ClockSteps:
    """Tells when the wall clock was set: when it moved otherwise than the clock that never is.

    Args of the constructor, and of look(): wall time in microseconds, the other clock in seconds.
    """

    def __init__(self, now: int, monotonic_s: float) -> None:
        self._offset_s = now / 1_000_000 - monotonic_s

    def look(self, now: int, monotonic_s: float) -> float:
        """Return by how many seconds it was set since the last look; 0.0 when it was not."""
        offset_s = now / 1_000_000 - monotonic_s
        step_s, self._offset_s = offset_s - self._offset_s, offset_s
        return step_s if abs(step_s) >= CLOCK_STEP_S else 0.0


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
    metrics.subscriptions_seen.set(counts["seen"])
    metrics.slots_owned.set(len(slots))
    metrics.slots_live.set(holdings.live)
    if shard.draining:
        return
    if not shard.settled and up_for_s >= SETTLED_S and shard.registered and not shard.others_drain:
        shard.settled = True
    if not shard.registered:
        shard.runtime.health.set_ready(False, shard.waits_for)
    elif not shard.settled and shard.others_drain:
        shard.runtime.health.set_ready(False, "another shard drains")
    elif holdings.live < len(slots):
        waiting = [slot.name for slot in slots if not slot.is_complete]
        shard.runtime.health.set_ready(False, f"not heard: {', '.join(waiting[:5])}")
    else:
        shard.runtime.health.set_ready(True)
