"""Following what a zone's own lanes claim to have heard, by the ledger: every claim stands in the batch of its rows.

The view `listening` looks at all there is; a follower that asks every few seconds reads only what is new.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import LiteralString
from uuid import UUID

from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import LISTEN_CLOSED, LISTEN_OPENED, LISTEN_RANGES, Family, Table
from libs.store.pool import AnyConnection, map_store_errors

BATCHES_MAX = 1_000

_NEXT: LiteralString = """
select b.lane, b.batch_no, b.batch_id, h.time_from, h.time_to
from lanes l
left join unnest($1::uuid[], $2::bigint[]) as cursor (lane, batch_no) on cursor.lane = l.lane
cross join lateral (
    select i.* from ingest_batches i
    where i.lane = l.lane and i.batch_no > coalesce(cursor.batch_no, 0)
    order by i.batch_no limit $4
) b
cross join lateral (
    select min(t.time_from) as time_from, max(t.time_to) as time_to
    from unnest(b.table_names, b.times_from, b.times_to) as t (name, time_from, time_to)
    where t.name in ('listen_ranges', 'listen_opened', 'listen_closed')
) h
where l.family = $3
  and (l.closed_at is null or l.last_batch_no is null or l.last_batch_no > coalesce(cursor.batch_no, 0))
order by b.lane, b.batch_no
limit $4
"""
"""Lane by lane from its cursor on, each a range of the ledger's key."""

_LANES: LiteralString = "select lane from lanes where family = $1"
_EXISTING: LiteralString = "select lane from lanes where lane = any($1::uuid[])"


@dataclass(frozen=True, slots=True)
class ListenTail:
    """What the batches after the cursors claim of one channel, and the cursors after them; of lanes that exist alone.

    is_end: nothing more was visible.
    """

    ranges: tuple[ListenRangeRow, ...] = ()
    opened: tuple[ListenOpenedRow, ...] = ()
    closed: tuple[ListenClosedRow, ...] = ()
    cursors: Mapping[UUID, int] = field(default_factory=dict)
    is_end: bool = True


async def read_listen_tail(
    conn: AnyConnection,
    family: Family,
    channel: str,
    cursors: Mapping[UUID, int],
    *,
    batches_max: int = BATCHES_MAX,
) -> ListenTail:
    """Return the claims of at most batches_max batches after the cursors; a lane without one is read from its start.

    Args:
        family: that of the batches in which the channel's claims stand.

    Raises:
        StoreUnavailable: nothing is read; ask again with the same cursors.
    """
    with map_store_errors():
        known = {row["lane"] for row in await conn.fetch(_LANES, family.value)}
        ledger = await conn.fetch(
            _NEXT, list(cursors), list(cursors.values()), family.value, batches_max
        )
        held = [row for row in ledger if row["time_from"] is not None]
        span = (
            [row["batch_id"] for row in held],
            min((row["time_from"] for row in held), default=0),
            max((row["time_to"] for row in held), default=0),
            channel,
        )
        found = {
            table.name: await conn.fetch(_rows_of(table), *span) if held else []
            for table in (LISTEN_RANGES, LISTEN_OPENED, LISTEN_CLOSED)
        }
    moved = {row["lane"]: row["batch_no"] for row in ledger}
    kept = {lane: number for lane, number in cursors.items() if lane in known}
    return ListenTail(
        tuple(ListenRangeRow(*row) for row in found["listen_ranges"]),
        tuple(ListenOpenedRow(*row) for row in found["listen_opened"]),
        tuple(ListenClosedRow(*row) for row in found["listen_closed"]),
        {**kept, **moved},
        len(ledger) < batches_max,
    )


async def drop_dead_cursors(conn: AnyConnection, cursors: Mapping[UUID, int]) -> dict[UUID, int]:
    """Return the cursors without those of lanes that the ledger has forgotten."""
    with map_store_errors():
        known = {row["lane"] for row in await conn.fetch(_EXISTING, list(cursors))}
    return {lane: number for lane, number in cursors.items() if lane in known}


def _rows_of(table: Table) -> str:
    return (
        f"select {', '.join(table.column_names)} from {table.name} where batch_id = any($1::bigint[])"
        f" and {table.time_column} between $2 and $3 and channel = $4"
    )
