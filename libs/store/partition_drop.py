"""Letting partitions go: whole, under their own lock, and only when what they hold is proved to be elsewhere.

A gatherer's partition goes when the deduplicator has released every batch that touches it; production's when its
manifests account for every row of it. Age alone decides nothing. A gatherer's ledger is read once a round, for all
partitions; what came after that reading is looked at again under each partition's lock (ledger_survey.py).
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from libs.marketdata.units import DAY
from libs.store.errors import StoreUnavailable
from libs.store.ledger_survey import survey_ledger
from libs.store.partition_plan import (
    CALENDAR_FROM,
    ArchivedWindow,
    Partition,
    archived_fault,
    partitioned_tables,
    window_bounds,
)
from libs.store.partitions import act_as_owner, existing_partitions, has_timescale
from libs.store.pool import AnyConnection, map_store_errors

EMPTY_KEPT = 4 * DAY
"""A partition that no batch touches is kept this long, microseconds: late rows find it."""

QUIET_S = 3600.0
"""Seconds that a range opened again is kept after its last use, when nobody says otherwise."""

_STILL_HEARD = "tells how streams began that are still heard"
_OPENINGS = ("listen_opened", "listen_closed")
_SPEAKS = """
SELECT EXISTS (
    SELECT FROM (SELECT DISTINCT connection, sid FROM {}) told
     WHERE EXISTS (SELECT FROM listen_ranges r WHERE r.connection = told.connection AND r.sid = told.sid))
"""

LOCK_WAIT_MS = 900
"""Below PostgreSQL's deadlock_timeout of 1 s, so that in a deadlock we give up and nobody else is aborted."""

_WINDOWS: LiteralString = """
SELECT window_from, window_to, sum(rows)::bigint AS rows, max(merge_to) AS merge_to
  FROM archive_manifests
 WHERE table_name = $1 AND window_from < $3 AND window_to > $2
 GROUP BY window_from, window_to
 ORDER BY window_from
"""

Check = Callable[[AnyConnection, Partition], Coroutine[Any, Any, str | None]]
Mark = Callable[[AnyConnection, Partition], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Why a partition is kept, before its lock and under it, and what is written down when it goes.

    lock: the mode in which the second check holds it.
    """

    before: Check
    locked: Check
    mark: Mark | None = None
    lock: LiteralString = "ACCESS EXCLUSIVE"


@dataclass(frozen=True, slots=True)
class Dropped:
    """What went, and what could have gone by age but did not: (partition, why)."""

    dropped: tuple[Partition, ...]
    kept: tuple[tuple[Partition, str], ...]


async def drop_partitions_released(conn: AnyConnection, now: int) -> Dropped:
    """Drop a gatherer's partitions of which every batch is released, and mark those batches dropped.

    Args:
        now: microseconds; a partition that is not over yet is never looked at, one that no batch touches is kept
            for four days.

    Raises:
        StoreUnavailable: the database is away. A partition whose lock was not to be had in time is only kept.
    """
    with map_store_errors():
        names = partitioned_tables("gatherer")
        over = [p for p in await existing_partitions(conn) if p.table in names and p.end <= now]
        if not over:
            return Dropped((), ())
        survey = await survey_ledger(conn)

        async def before(conn: AnyConnection, partition: Partition) -> str | None:
            why = survey.fault(partition)
            young = why is None and partition.end > now - EMPTY_KEPT
            if young and not survey.touched(partition):
                # Rows are there although no batch is left to mark: they all went with a partition of another table.
                is_empty = f"SELECT NOT EXISTS (SELECT FROM {partition.name})"
                return "empty, but young" if await conn.fetchval(is_empty) else None
            return why

        return await _drop_each(conn, over, _Rule(before, survey.late_fault, survey.mark_dropped))


async def drop_partitions_archived(
    conn: AnyConnection, before: int, quiet_s: float = QUIET_S
) -> Dropped:
    """Drop production's partitions that end at or before `before` and whose every row is in a manifest.

    Openings and closings of connections that production still has ranges of stay with them: without its opening a stream
    counts as never heard. What no calendar names (a chunk of moments before 1970, which an exchange may say) stays for good.

    Args:
        before: microseconds, what retention leaves; it never drops what is not archived.
        quiet_s: seconds for which nobody must have used a range that was opened again.

    Raises:
        StoreUnavailable: the database is away. A partition whose lock was not to be had in time is only kept.
    """
    with map_store_errors():
        names, busy = partitioned_tables("production"), await _busy(conn, quiet_s)
        over = [
            p
            for p in await existing_partitions(conn)
            if p.table in names
            and p.start >= CALENDAR_FROM
            and p.end <= before
            and (p.table, p.start) not in busy
        ]

        async def locked(conn: AnyConnection, partition: Partition) -> str | None:
            if (partition.table, partition.start) in await _busy(conn, quiet_s):
                return "opened again and in use"
            return await _archived(conn, partition)

        # Counting takes seconds, and who plans over the whole table locks every partition: only writers are kept out.
        rule = _Rule(_archived, locked, _raise_mark, "SHARE ROW EXCLUSIVE")
        done = await _drop_each(conn, over, rule)
        return replace(done, kept=tuple(one for one in done.kept if one[1] != _STILL_HEARD))


async def _busy(conn: AnyConnection, quiet_s: float) -> set[tuple[str, int]]:
    """Ranges that somebody waits for or has used lately: (table, first moment)."""
    rows = await conn.fetch(
        "SELECT table_name, range_from FROM archive_reopenings WHERE state IN ('requested', 'failed')"
        " OR (state = 'open' AND used_at > clock_timestamp() - make_interval(secs => $1))",
        quiet_s,
    )
    return {(row["table_name"], row["range_from"]) for row in rows}


async def _archived(conn: AnyConnection, partition: Partition) -> str | None:
    """Count the partition's rows window by window and compare them with the manifests."""
    if partition.table in _OPENINGS and await conn.fetchval(_SPEAKS.format(partition.name)):
        return _STILL_HEARD
    found = await conn.fetch(_WINDOWS, partition.table, partition.start, partition.end)
    windows = [ArchivedWindow(*row) for row in found]
    column = partitioned_tables("production")[partition.table].time_column
    bounds = window_bounds(windows)
    rows = await conn.fetch(
        f"SELECT width_bucket({column}, $1::bigint[]) AS bucket, count(*) AS rows, max(merge_no) AS merge_no"
        f" FROM {partition.name} GROUP BY bucket",
        bounds or [partition.start],
    )
    starts = [partition.start - 1, *bounds]
    counted = {
        starts[row["bucket"]] if bounds else partition.start - 1: (row["rows"], row["merge_no"])
        for row in rows
    }
    return archived_fault(partition, windows, counted)


async def _raise_mark(conn: AnyConnection, partition: Partition) -> None:
    """Say to the merge that rows older than this partition's end may be in the archive already.

    By that a request to have it open is closed (migration p0003), which must be in one transaction with the drop.
    """
    await conn.execute(
        "INSERT INTO retention_marks (table_name, dropped_before) VALUES ($1, $2) ON CONFLICT (table_name)"
        " DO UPDATE SET dropped_before = greatest(retention_marks.dropped_before, excluded.dropped_before)",
        partition.table, partition.end,
    )  # fmt: skip


async def _drop_each(conn: AnyConnection, partitions: Iterable[Partition], rule: _Rule) -> Dropped:
    timescale = await has_timescale(conn)
    dropped: list[Partition] = []
    kept: list[tuple[Partition, str]] = []
    busy: dict[str, str] = {}
    for partition in partitions:
        why = busy.get(partition.table)
        if why is None:
            try:
                with map_store_errors():
                    why = await _drop_one(conn, partition, rule, timescale=timescale)
            except StoreUnavailable as error:
                if conn.is_closed():
                    raise
                # Whoever holds this table holds it for its other partitions too: do not wait for each of them.
                why = busy[partition.table] = str(error)
        if why is None:
            dropped.append(partition)
        else:
            kept.append((partition, why))
    return Dropped(tuple(dropped), tuple(kept))


async def _drop_one(
    conn: AnyConnection,
    partition: Partition,
    rule: _Rule,
    *,
    timescale: bool,
) -> str | None:
    """Check, lock, check again, mark, drop: one transaction; return why it was kept.

    The first check keeps locks away from partitions that cannot go. The partition alone is locked while the second
    counts; the drop then takes the table for a moment. Whoever holds the table and waits for the partition is no
    deadlock: we give up first.
    """
    # Each statement sees what was committed before it: the second check what the lock had to wait for.
    async with conn.transaction(isolation="read_committed"):
        await act_as_owner(conn)
        why = await rule.before(conn, partition)
        if why is not None:
            return why
        await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'")
        await conn.execute(f"LOCK TABLE {partition.name} IN {rule.lock} MODE")
        why = await rule.locked(conn, partition)
        if why is not None:
            return why
        if rule.mark is not None:
            await rule.mark(conn, partition)
        if timescale:
            await conn.execute(
                "SELECT drop_chunks($1::text::regclass, older_than => $2::bigint, newer_than => $3::bigint)",
                partition.table, partition.end, partition.start,
            )  # fmt: skip
        else:
            await conn.execute(f"DROP TABLE {partition.name}")
    return None
