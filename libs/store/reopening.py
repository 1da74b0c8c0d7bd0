"""Opening again what retention has dropped: its rows come back from the archive, and only then late ones may come.

The deduplicator asks for ranges that late rows need (reopening_requests.py) and waits; the archiver makes the partition again beside the table,
loads every object of its windows into it, compares the count with the manifests and attaches it, all in one transaction
that ends with the range being 'open'. Nobody who reads or writes the table is kept waiting meanwhile.
On TimescaleDB, where a chunk cannot be made beside its table, the rows go straight into it. Dropping it
again is retention's ordinary work (partition_drop.py), which closes the request.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final

import asyncpg

from libs.archive.keys import Window
from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import DAY
from libs.store.borrowing import borrow
from libs.store.dropped import Range
from libs.store.errors import StoreError, StoreUnavailable
from libs.store.leases import Lease
from libs.store.loading import load_rows
from libs.store.partition_plan import ArchivedWindow, partition_name, window_bounds
from libs.store.partitions import act_as_owner, existing_partitions, has_timescale
from libs.store.pool import AnyConnection, Pool, map_store_errors

ATTACH_ATTEMPTS: Final = 20

_OBJECTS = f"""
SELECT object, sha256, rows, window_from, window_to, merge_to FROM archive_manifests
 WHERE table_name = $1 AND window_from < $3 AND window_from > $2 - {DAY} AND window_to > $2
 ORDER BY window_from, supplement
"""

_OPENED = """
UPDATE archive_reopenings SET state = 'open', opened_at = clock_timestamp(), used_at = clock_timestamp(), rows = $3,
       attempts = attempts + 1, tried_at = clock_timestamp(), detail = ''
 WHERE table_name = $1 AND range_from = $2
"""

_BESIDE = """
CREATE TABLE {name} (LIKE {table} INCLUDING ALL);
ALTER TABLE {name} ADD CONSTRAINT reopened CHECK ({column} >= {start} AND {column} < {end});
"""

# The check spares the server reading the partition again; rows that waited in the default one may be copies.
_ATTACH = """
LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE;
LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE;
WITH moved AS (DELETE FROM {table}_default WHERE {column} >= {start} AND {column} < {end} RETURNING *)
INSERT INTO {name} SELECT * FROM moved ON CONFLICT DO NOTHING;
ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end});
ALTER TABLE {name} DROP CONSTRAINT reopened;
"""

_EVENT = "INSERT INTO operational_events (kind, detail) VALUES ($1, $2)"


class WindowsDiffer(StoreError):
    """What was loaded back is not what the manifests say; nothing of it stands."""

    retryable: ClassVar[bool] = True


class _NotOurs(Exception):
    """The lease is another's: leaves the transaction, so that it is rolled back."""


@dataclass(frozen=True, slots=True)
class Archived:
    """One object as its manifest in production has it."""

    object: str
    sha256: str
    rows: int
    window: Window
    merge_to: int


async def archived_objects(pool: Pool, wanted: Range) -> list[Archived]:
    """Return the objects of every window that touches the range, in order. Raises StoreUnavailable."""
    with map_store_errors():
        rows = await pool.fetch(_OBJECTS, *wanted)
    return [
        Archived(name, sha256, count, Window(start, end), merge_to)
        for name, sha256, count, start, end, merge_to in rows
    ]


async def reopen(
    pool: Pool,
    wanted: Range,
    objects: Sequence[Archived],
    groups: Iterator[Sequence[tuple[Any, ...]]],
    lease: Lease,
    seconds: float,
) -> int | None:
    """Load the rows of a range back and open it, all or nothing; return how many production did not have.

    Args:
        objects: of every window that touches the range.
        groups: their rows; read in a thread.
        lease: of the archiver; None is returned, and nothing changed, when it is another's.
        seconds: that one statement may take.

    Raises:
        WindowsDiffer: the rows are not those of the manifests.
        StoreUnavailable: production is away, or the table's lock was not to be had.
    """
    with contextlib.suppress(_NotOurs):
        async with borrow(pool) as conn:
            groups = await _make_chunk(conn, wanted, objects, groups)
            async with conn.transaction(isolation="read_committed"):
                await conn.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
                loaded = await _fill(conn, wanted, objects, groups, seconds)
                await conn.execute("SET LOCAL ROLE NONE")
                if not await lease.holds(conn):
                    raise _NotOurs
                await conn.execute(_OPENED, wanted.table, wanted.start, loaded)
                detail = f"{wanted}: {len(objects)} objects, {loaded} rows loaded back"
                await conn.execute(_EVENT, "range_reopened", detail)
            return loaded
    return None


async def _fill(
    conn: AnyConnection,
    wanted: Range,
    objects: Sequence[Archived],
    groups: Iterator[Sequence[tuple[Any, ...]]],
    seconds: float,
) -> int:
    if not _may_be_gone(wanted, objects):
        return 0
    table = GATHERER_TABLES[wanted.table]
    await act_as_owner(conn)
    there = await _partition(conn, wanted)
    names = {
        "name": partition_name(wanted.table, wanted.start, wanted.end - wanted.start),
        "table": wanted.table, "column": table.time_column, "start": wanted.start, "end": wanted.end,
    }  # fmt: skip
    is_beside = there is None and not await has_timescale(conn)
    if is_beside:
        await conn.execute(_BESIDE.format(**names))
    into, rows = str(names["name"]) if is_beside else wanted.table, 0
    while (group := await asyncio.to_thread(next, groups, None)) is not None:
        rows += await load_rows(conn, table, group, into=into)
    if is_beside:
        await _attach(conn, _ATTACH.format(**names))
    await _verify(conn, table, wanted, objects, seconds)
    return rows


def _may_be_gone(wanted: Range, objects: Sequence[Archived]) -> bool:
    """A partition that a window reaches out of is never dropped: nothing of it is missing."""
    return all(o.window.start >= wanted.start and o.window.end <= wanted.end for o in objects)


async def _make_chunk(
    conn: AnyConnection,
    wanted: Range,
    objects: Sequence[Archived],
    groups: Iterator[Sequence[tuple[Any, ...]]],
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """On TimescaleDB, let one row go first: who makes a chunk keeps all others from making theirs until it commits.

    It is an archived one; until the range is open it means nothing to the merge. Returns the groups, that row among them.
    """
    if not await has_timescale(conn) or not _may_be_gone(wanted, objects):
        return groups
    first = await asyncio.to_thread(next, groups, None)
    if first is None:
        return groups
    async with conn.transaction():
        await act_as_owner(conn)
        await load_rows(conn, GATHERER_TABLES[wanted.table], first[:1])
    return chain([first], groups)


async def _partition(conn: AnyConnection, wanted: Range) -> str | None:
    """Return the partition that holds the range, locked against being dropped; None when there is none."""
    for one in await existing_partitions(conn):
        if one.table == wanted.table and one.start < wanted.end and wanted.start < one.end:
            try:
                await conn.execute(f"LOCK TABLE {one.name} IN ROW EXCLUSIVE MODE")
            except asyncpg.UndefinedTableError as error:
                raise StoreUnavailable(f"{one.name} was dropped just now") from error
            return one.name
    return None


async def _attach(conn: AnyConnection, script: str) -> None:
    """Attach, patiently: what was loaded is not to be lost to somebody's long look at the table."""
    await conn.execute("SET LOCAL lock_timeout = '900ms'")
    for left in reversed(range(ATTACH_ATTEMPTS)):
        try:
            async with conn.transaction():
                await conn.execute(script)
                return
        except asyncpg.LockNotAvailableError:
            if not left:
                raise
            await asyncio.sleep(0.5)


async def _verify(
    conn: AnyConnection, table: Table, wanted: Range, objects: Sequence[Archived], seconds: float
) -> None:
    """Count what production has now of each window, up to the merge its objects go to."""
    windows = _windows(objects)
    if not windows:
        return
    bounds, limits = window_bounds(windows), {w.start: w.merge_to for w in windows}
    column = table.time_column
    rows = await conn.fetch(
        f"SELECT width_bucket({column}, $1::bigint[]) AS bucket, count(*) AS rows FROM {wanted.table}"
        f" WHERE {column} >= $3 AND {column} < $4"
        f" AND merge_no <= ($2::bigint[])[width_bucket({column}, $1::bigint[])] GROUP BY bucket",
        bounds, [limits.get(bound, -1) for bound in bounds], wanted.start, wanted.end,
        timeout=seconds + 10,
    )  # fmt: skip
    found = {bounds[row["bucket"] - 1]: row["rows"] for row in rows}
    for window in windows:
        if found.get(window.start, 0) != window.rows:
            raise WindowsDiffer(
                f"window {window.start}..{window.end} holds {found.get(window.start, 0)} rows, its manifests {window.rows}"
            )


def _windows(objects: Sequence[Archived]) -> list[ArchivedWindow]:
    found: dict[Window, list[Archived]] = {}
    for one in objects:
        found.setdefault(one.window, []).append(one)
    return [
        ArchivedWindow(
            window.start, window.end, sum(o.rows for o in own), max(o.merge_to for o in own)
        )
        for window, own in sorted(found.items())
    ]
