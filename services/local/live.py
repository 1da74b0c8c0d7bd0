"""The live table: what every zone and the merge are doing, from the processes' own /health documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

Health = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ZoneFigures:
    """One zone at one moment; totals since its processes started, lag in milliseconds."""

    processes: int
    connections: int
    frames: int
    rows: int
    lag_ms: float | None
    gaps: int


@dataclass(frozen=True, slots=True)
class MergeFigures:
    """Production at one moment; totals since the deduplicator started."""

    rows: int
    duplicates: int
    lag_ms: Mapping[str, float | None]
    status: Mapping[str, str]
    archived: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything one refresh shows; `at` is a monotonic time in seconds."""

    at: float
    zones: Mapping[str, ZoneFigures]
    merge: MergeFigures


def zone_figures(healths: Sequence[Health]) -> ZoneFigures:
    """Add up the documents of a zone's processes; those that could not be asked are empty."""
    answering = [health for health in healths if health]
    connectors = [health for health in answering if health.get("service") == "connector"]
    lags = [health["lag_ms"] for health in connectors if health.get("lag_ms") is not None]
    return ZoneFigures(
        processes=len(answering),
        connections=sum(int(health.get("connections", 0)) for health in connectors),
        frames=sum(int(health.get("frames", 0)) for health in connectors),
        rows=sum(_total(health.get("rows", {})) for health in answering),
        lag_ms=max(lags) if lags else None,
        gaps=sum(int(health.get("gaps", 0)) for health in connectors),
    )


def _total(rows: Any) -> int:
    return sum(rows.values()) if isinstance(rows, dict) else int(rows)


def merge_figures(deduplicator: Health, archiver: Health) -> MergeFigures:
    """Read the documents of deduplicator and archiver."""
    gatherers = deduplicator.get("gatherers", {})
    return MergeFigures(
        rows=int(deduplicator.get("rows_inserted", 0)),
        duplicates=int(deduplicator.get("duplicates", 0)),
        lag_ms={zone: entry.get("lag_ms") for zone, entry in gatherers.items()},
        status={zone: str(entry.get("status", "?")) for zone, entry in gatherers.items()},
        archived=int(archiver.get("rows", 0)),
    )


def table_of(moment: Moment, before: Moment | None, title: str) -> Table:
    """Draw a moment; rates come from the moment before it."""
    table = Table(title=title, title_justify="left", expand=False)
    for heading in (
        "zone",
        "state",
        "conns",
        "frames/s",
        "rows/s",
        "lag ms",
        "merge lag ms",
        "gaps",
    ):
        table.add_column(heading, justify="left" if heading in ("zone", "state") else "right")
    for zone, now in moment.zones.items():
        then = before.zones.get(zone) if before else None
        seconds = moment.at - before.at if before else 0.0
        table.add_row(
            zone,
            _state(now, moment.merge.status.get(zone, "")),
            str(now.connections),
            _rate(now.frames, then.frames if then else None, seconds),
            _rate(now.rows, then.rows if then else None, seconds),
            _number(now.lag_ms),
            _number(moment.merge.lag_ms.get(zone)),
            str(now.gaps),
            style=None if now.processes else "red",
        )
    merge, then_merge = moment.merge, before.merge if before else None
    seconds = moment.at - before.at if before else 0.0
    table.add_section()
    table.add_row(
        "production",
        f"{merge.duplicates:,} duplicates dropped, {merge.archived:,} rows archived",
        "",
        "",
        _rate(merge.rows, then_merge.rows if then_merge else None, seconds),
        style="bold",
    )
    return table


def _state(zone: ZoneFigures, merge_status: str) -> str:
    if not zone.processes:
        return "away"
    return (
        f"{zone.processes} processes, {merge_status}"
        if merge_status
        else f"{zone.processes} processes"
    )


def _rate(now: int, then: int | None, seconds: float) -> str:
    # After a restart totals begin anew: no rate rather than a negative one.
    if then is None or now < then or seconds <= 0:
        return "-"
    return f"{(now - then) / seconds:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
