"""Old chunks of a gatherer as columns: TimescaleDB's columnstore, for chunks that production has acknowledged.

A policy of the server goes by age alone, so the choice is made here. A chunk is converted when it is over for a while
and every batch of the ledger that touches it is acknowledged: until then its readers look rows up by batch, and writers
add to it. Rows that come later still go in, as rows; the next turn converts them too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from libs.marketdata.units import HOUR
from libs.store.errors import StoreUnavailable
from libs.store.partition_plan import Partition
from libs.store.partitions import act_as_owner, has_timescale
from libs.store.pool import AnyConnection, map_store_errors

CONVERT_AFTER: Final = HOUR
"""A chunk that ended this long ago is converted, microseconds: rows that are a little late come before."""
CHUNKS_MAX: Final = 20
"""Converted in one turn; the next goes on."""
CONVERT_S_MAX: Final = 900.0
"""Seconds that one chunk may take; one of 20 million rows takes about a minute."""
LOCK_WAIT_MS: Final = 3_000
"""Longer than deadlock_timeout, after which an autovacuum that is in the way gives up; nobody waits for us long."""

_CONVERTIBLE: LiteralString = """
select c.hypertable_name as table_name, format('%I.%I', c.chunk_schema, c.chunk_name) as name,
       c.range_start_integer as start, c.range_end_integer as "end", c.is_compressed
  from timescaledb_information.chunks c
  join timescaledb_information.hypertables h using (hypertable_schema, hypertable_name)
 where c.hypertable_schema = 'public' and h.compression_enabled and c.range_end_integer <= $1
 order by c.range_end_integer, c.hypertable_name
"""
_UNACKNOWLEDGED: LiteralString = """
select t.name as table_name, min(t.time_from) as time_from, max(t.time_to) as time_to
  from lanes l
  left join lane_acknowledgements a on a.lane = l.lane
 cross join lateral (
    select i.table_names, i.times_from, i.times_to from ingest_batches i
     where i.lane = l.lane and i.batch_no > coalesce(a.batch_no, 0)
 ) b
 cross join lateral unnest(b.table_names, b.times_from, b.times_to) as t (name, time_from, time_to)
 group by t.name, t.time_from / 3600000000, t.time_to / 3600000000
"""

Spans = Mapping[str, Sequence[tuple[int, int]]]
"""table -> times [from, to] of batches, microseconds."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What was converted, and what could have been by age but was not: (chunk, why)."""

    converted: tuple[Partition, ...] = ()
    kept: tuple[tuple[Partition, str], ...] = ()


def unacknowledged_fault(chunk: Partition, spans: Spans) -> str | None:
    """Say why a chunk stays as it is; None when no unacknowledged batch touches it."""
    for time_from, time_to in spans.get(chunk.table, ()):
        if time_from < chunk.end and time_to >= chunk.start:
            return "a batch is not acknowledged"
    return None


async def convert_acknowledged(
    conn: AnyConnection, now: int, *, after: int = CONVERT_AFTER, chunks_max: int = CHUNKS_MAX
) -> Converted:
    """Convert the chunks that ended at or before now - after and are acknowledged; nothing on plain PostgreSQL.

    Args:
        conn: not inside a transaction; of a user that may act as the tables' owner.
        now, after: microseconds.

    Raises:
        StoreUnavailable: the database is away. A chunk that is locked just now is only kept.
    """
    with map_store_errors():
        if not await has_timescale(conn):
            return Converted()
        found = await conn.fetch(_CONVERTIBLE, now - after)
        chunks = [
            (
                Partition(row["table_name"], row["name"], row["start"], row["end"]),
                row["is_compressed"],
            )
            for row in found
        ]
        spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        if chunks:
            for name, time_from, time_to in await conn.fetch(_UNACKNOWLEDGED):
                spans[name].append((time_from, time_to))
        return await _convert_each(conn, chunks, spans, chunks_max)


async def _convert_each(
    conn: AnyConnection, chunks: Sequence[tuple[Partition, bool]], spans: Spans, chunks_max: int
) -> Converted:
    converted: list[Partition] = []
    kept: list[tuple[Partition, str]] = []
    for chunk, is_done in chunks:
        if len(converted) >= chunks_max:
            break
        why = unacknowledged_fault(chunk, spans)
        if why is None and is_done and not await _has_rows(conn, chunk):
            continue
        if why is None:
            why = await _convert(conn, chunk)
        if why is None:
            converted.append(chunk)
        else:
            kept.append((chunk, why))
    return Converted(tuple(converted), tuple(kept))


async def _has_rows(conn: AnyConnection, chunk: Partition) -> bool:
    """Tell whether rows came after the chunk was converted."""
    return bool(await conn.fetchval(f"SELECT EXISTS (SELECT FROM ONLY {chunk.name})"))


async def _convert(conn: AnyConnection, chunk: Partition) -> str | None:
    """Convert one chunk in a transaction of its own; return why it was not."""
    try:
        with map_store_errors():
            async with conn.transaction(isolation="read_committed"):
                await act_as_owner(conn)
                await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'")
                await conn.execute(f"SET LOCAL statement_timeout = '{int(CONVERT_S_MAX * 1000)}ms'")
                await conn.execute(
                    f"CALL convert_to_columnstore('{chunk.name}')", timeout=CONVERT_S_MAX + 10
                )
    except StoreUnavailable as error:
        if conn.is_closed():
            raise
        return str(error)
    return None
