"""Pages: whole batches after a reader's cursors, counted and hashed again from the bytes that are read.

One query finds the next ledger rows of every lane that is open or not drained; one COPY per table brings their rows;
all in one REPEATABLE READ transaction, so that ledger and rows are of one moment. Per lane the numbers are taken
without a break: a number missing below an existing one cannot happen while the gatherer is sound, whatever the other
lanes do and however long a transaction is held open.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import asyncpg

from libs.marketdata.binary import read_copy, rows_hash
from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.store.batches import SCHEMA_VERSION
from libs.store.errors import GathererUnsound, SchemaMismatch
from libs.store.page_query import Part, rows_query
from libs.store.pool import AnyConnection, map_store_errors

LEDGER_ROWS_MAX: Final = 256
"""Ledger rows looked at for one page, shared by the lanes; at least four of each lane."""

PLAN_BY_NUMBER: Final = """
set local enable_seqscan = off; set local max_parallel_workers_per_gather = 0
"""
"""A chunk that is being filled has no statistics yet, and without them every plan is a scan of the whole chunk."""

_NEXT_BATCHES = """
with cursors as (
    select * from unnest($1::uuid[], $2::bigint[]) as given (lane, cursor)
), wanted as (
    select l.*, c.cursor, coalesce(r.released_batch_no, 0) as released
    from lanes l left join cursors c using (lane) left join lane_releases r using (lane)
    where l.closed_at is null or coalesce(c.cursor, 0) < coalesce(l.last_batch_no, 9223372036854775807)
), following as (
    select b.*, row_number() over (partition by b.lane order by b.batch_no) as turn,
        case when b.dropped_at is null then (select sum(n) from unnest(b.row_counts) n) else 0 end as rows
    from wanted w cross join lateral (
        select lane, batch_no, batch_id, committed_at, schema_version, table_names, row_counts, row_hashes,
            times_from, times_to, dropped_at
        from ingest_batches i where i.lane = w.lane and i.batch_no > coalesce(w.cursor, 0)
        order by i.batch_no limit (select greatest(4, $4 / greatest(1, count(*))) from wanted)
    ) b
), queue as (
    -- One batch of each lane after the other; within a round whoever has waited longest.
    select *, sum(rows) over by_turn as running, row_number() over by_turn as place
    from following window by_turn as (order by turn, committed_at, lane rows unbounded preceding)
)
select w.lane, w.family, w.process, w.instance, w.opened_at, w.closed_at, w.last_batch_no, w.cursor, w.released,
    coalesce((select max(batch_no) from ingest_batches i where i.lane = w.lane), 0) as last,
    q.batch_no, q.batch_id, q.committed_at, q.schema_version, q.table_names, q.row_counts, q.row_hashes, q.times_from,
    q.times_to, q.dropped_at
from wanted w left join queue q on q.lane = w.lane and (q.running <= $3 or q.place = 1)
order by w.opened_at, w.lane, q.batch_no
"""

_IS_DROPPED = "select dropped_at is not null from ingest_batches where lane = $1 and batch_no = $2"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which gatherer database this is; `zone` is only a label."""

    identity: UUID
    zone: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """A lane that is open or not drained, as its database shows it.

    last: the largest number in the ledger, 0 for none. read: the cursor to keep when this page is merged.
    """

    lane: UUID
    family: Family
    process: str
    instance: UUID
    opened_at: datetime
    closed_at: datetime | None
    last_batch_no: int | None
    last: int
    read: int

    @property
    def drained(self) -> bool:
        """True when it is closed and nothing is left behind `read`."""
        return self.last_batch_no is not None and self.read >= self.last_batch_no


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """A committed batch with its rows by table name. dropped: its rows are gone by retention; rows is empty.

    payloads: the packed form of the same rows in the same order, all columns of the table but batch_id.
    """

    lane: UUID
    batch_no: int
    batch_id: int
    family: Family
    committed_at: datetime
    dropped: bool
    rows: dict[str, list[Any]]
    payloads: dict[str, list[bytes]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Batches, per lane in order of their numbers, and every lane that was looked at."""

    batches: list[ReadBatch]
    lanes: list[LaneState]


async def read_identity(conn: AnyConnection) -> Identity:
    """Return the identity migrate gave this gatherer database.

    Raises:
        SchemaMismatch: there is none: not a migrated gatherer database.
    """
    with map_store_errors():
        row = await conn.fetchrow("select identity, zone from gatherer_identity")
    if row is None:
        raise SchemaMismatch("gatherer_identity is empty; run the migration of this gatherer")
    return Identity(row["identity"], row["zone"])


async def read_page(conn: AnyConnection, cursors: Mapping[UUID, int], rows_max: int) -> Page:
    """Read the next whole batches of all lanes, fairly between them: at least one, at most rows_max rows.

    Args:
        conn: not inside a transaction.
        cursors: lane -> last number already read. A lane without one, or at 0, starts at 1, or at the smallest number there
            is when everything below it was released (and then deleted).
        rows_max: rows over all tables and lanes; a batch that alone is larger makes a page of its own.

    Raises:
        GathererUnsound: 'hole', 'count' or 'hash' at a lane's number.
        SchemaMismatch: the gatherer's schema is newer than this code.
        StoreUnavailable: the database is away; read again.
    """
    try:
        return await _read_once(conn, cursors, rows_max)
    except GathererUnsound as fault:
        # Dropping a chunk is not versioned: a snapshot from before it may miss the rows and not yet see dropped_at.
        with map_store_errors():
            is_dropped = await conn.fetchval(_IS_DROPPED, fault.lane, fault.batch_no)
        if fault.detail != "count" or not is_dropped:
            raise
    return await _read_once(conn, cursors, rows_max)


async def _read_once(conn: AnyConnection, cursors: Mapping[UUID, int], rows_max: int) -> Page:
    with map_store_errors():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(PLAN_BY_NUMBER)
            ledger = await conn.fetch(
                _NEXT_BATCHES, list(cursors), list(cursors.values()), rows_max, LEDGER_ROWS_MAX
            )
            lanes = [_lane(list(rows)) for _, rows in groupby(ledger, key=itemgetter("lane"))]
            chosen = [row for row in ledger if row["batch_no"] is not None]
            _check_schema(chosen)
            kept = [row for row in chosen if row["dropped_at"] is None]
            content = await _read_content(conn, kept)
    return Page([_batch(row, content) for row in chosen], lanes)


def _lane(rows: Sequence[asyncpg.Record]) -> LaneState:
    """Check that a lane's numbers go on from its cursor without a break, and say how far they go."""
    row = rows[0]
    read = start = _start(row)
    for found in rows:
        if found["batch_no"] is not None:
            if found["batch_no"] != read + 1:
                raise GathererUnsound(row["lane"], read + 1, "hole")
            read += 1
    if read == start and row["last"] <= read < (row["last_batch_no"] or 0):
        # Closed with a number that the ledger does not have; normal only after release. What it has is read first.
        if row["released"] < row["last_batch_no"]:
            raise GathererUnsound(row["lane"], read + 1, "hole")
        read = row["last_batch_no"]
    return LaneState(
        lane=row["lane"],
        family=Family(row["family"]),
        process=row["process"],
        instance=row["instance"],
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        last_batch_no=row["last_batch_no"],
        last=row["last"],
        read=read,
    )


def _start(row: asyncpg.Record) -> int:
    """The number to go on from: the cursor, or what retention has deleted of a lane never read."""
    if row["cursor"]:
        return int(row["cursor"])
    smallest = row["batch_no"]
    return smallest - 1 if smallest is not None and smallest - 1 <= row["released"] else 0


def _check_schema(chosen: Iterable[asyncpg.Record]) -> None:
    for row in chosen:
        unknown = set(row["table_names"]) - GATHERER_TABLES.keys()
        if row["schema_version"] > SCHEMA_VERSION or unknown:
            raise SchemaMismatch(
                f"batch {row['batch_no']} of lane {row['lane']} is of schema {row['schema_version']}"
                f" (known: {SCHEMA_VERSION}){', tables ' + ', '.join(unknown) if unknown else ''}"
            )


class _Content:
    """Rows and payloads as they are read, by (table, batch_id)."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], list[Any]] = defaultdict(list)
        self.payloads: dict[tuple[str, int], list[bytes]] = defaultdict(list)

    def add(self, table_name: str, data: bytes) -> None:
        """Sort the rows of one COPY into their batches."""
        batch, rows, payloads = -1, list[Any](), list[bytes]()
        for batch_id, row, payload in read_copy(data, table_name):
            if batch_id != batch:
                batch, key = batch_id, (table_name, batch_id)
                rows, payloads = self.rows[key], self.payloads[key]
            rows.append(row)
            payloads.append(payload)


async def _read_content(conn: AnyConnection, chosen: Sequence[asyncpg.Record]) -> _Content:
    """Read the rows of the chosen batches, one COPY per table that any of them has."""
    spans: dict[str, list[Part]] = defaultdict(list)
    for row in chosen:
        columns = zip(row["table_names"], row["times_from"], row["times_to"], strict=True)
        for table_name, time_from, time_to in columns:
            spans[table_name].append((row["batch_id"], time_from, time_to))
    content = _Content()
    for table_name, parts in spans.items():
        chunks: list[bytes] = []

        async def keep(data: bytes, chunks: list[bytes] = chunks) -> None:
            chunks.append(data)

        await conn.copy_from_query(rows_query(table_name, parts), output=keep, format="binary")
        content.add(table_name, b"".join(chunks))
    return content


def _batch(row: asyncpg.Record, content: _Content) -> ReadBatch:
    """Put a batch together and check it against its ledger row."""
    rows: dict[str, list[Any]] = {}
    payloads: dict[str, list[bytes]] = {}
    dropped = row["dropped_at"] is not None
    if not dropped:
        promised = zip(row["table_names"], row["row_counts"], row["row_hashes"], strict=True)
        for table_name, count, row_hash in promised:
            key = (table_name, row["batch_id"])
            rows[table_name], payloads[table_name] = content.rows[key], content.payloads[key]
            if len(rows[table_name]) != count:
                raise GathererUnsound(row["lane"], row["batch_no"], "count")
            if rows_hash(payloads[table_name]) != row_hash:
                raise GathererUnsound(row["lane"], row["batch_no"], "hash")
    return ReadBatch(
        lane=row["lane"],
        batch_no=row["batch_no"],
        batch_id=row["batch_id"],
        family=Family(row["family"]),
        committed_at=row["committed_at"],
        dropped=dropped,
        rows=rows,
        payloads=payloads,
    )
