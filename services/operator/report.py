"""What a zone looks like in metrics and in /health."""

from typing import Any

from libs.telemetry.metrics import Metrics
from services.operator.status import count_slots, members
from services.operator.zone import Zone


def report(metrics: Metrics, zone: Zone, took_s: float | None = None) -> None:
    """Set a zone's metrics from what was seen last. took_s: how long a look that answered took."""
    name, look = zone.gatherer.name, zone.look
    metrics.planned_database_reachable.labels(name).set(zone.fault is None)
    metrics.assignment_epoch.labels(name).set(zone.planner.epoch or 0)
    metrics.assignment_shards.labels(name, "wanted").set(zone.gatherer.shards)
    if took_s is not None:
        metrics.reconcile_seconds.labels(name).observe(took_s)
    if look is None:
        return
    counts = count_slots(zone.gatherer.slots.names(), look.zone)
    for state in ("live", "moving", "unassigned"):
        metrics.assignment_slots.labels(name, state).set(getattr(counts, state))
    living = members(look.zone)
    draining = sum(shard.is_alive and shard.draining for shard in look.zone.shards)
    metrics.assignment_shards.labels(name, "alive").set(len(living))
    metrics.assignment_shards.labels(name, "draining").set(draining)
    if zone.pods is not None:
        ready = living.intersection(pod.name for pod in zone.pods if pod.is_ready)
        metrics.assignment_shards.labels(name, "ready").set(len(ready))
    if look.plan is None:
        return
    metrics.assignment_frozen.labels(name).set(look.plan.is_frozen)
    if took_s is not None and look.written:
        for kind, count in look.plan.counts().items():
            metrics.assignment_changes_total.labels(name, kind).inc(count)


def forget(metrics: Metrics, name: str) -> None:
    """Take a zone that is no more out of the gauges, which would show its last figures for ever."""
    for gauge in (
        metrics.planned_database_reachable,
        metrics.assignment_epoch,
        metrics.assignment_frozen,
        metrics.assignment_slots,
        metrics.assignment_shards,
    ):
        gauge.remove_by_labels({"gatherer": name})


def describe(zone: Zone) -> dict[str, Any]:
    """One zone's entry in /health."""
    look = zone.look
    facts: dict[str, Any] = {
        "plans": zone.planner.epoch is not None,
        "epoch": zone.planner.epoch,
        "other_operator": zone.planner.other if zone.is_anothers else "",
        "database": zone.fault.reason if zone.fault else "Answers" if look else "",
        "fault": zone.fault.message if zone.fault else "",
        "shards_wanted": zone.gatherer.shards,
        "told": zone.is_told,
        "warning": zone.seen().warning,
    }
    if look is not None:
        facts["slots"] = count_slots(zone.gatherer.slots.names(), look.zone)._asdict()
        facts["shards"] = sorted(members(look.zone))
        facts["frozen"] = look.plan is not None and look.plan.is_frozen
    return facts
