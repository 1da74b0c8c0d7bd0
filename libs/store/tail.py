"""Following one table of the zone's own database by the ledger, not by time or serial id.

A lane's batches commit one after another, so what is visible of a lane is always a beginning of it: the numbers after
a cursor are exactly what is new. Cheaper than pages.py, because other tables of the batch are neither read nor hashed;
for followers inside the zone only, whose work may be repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.marketdata.rows import ROW_TYPES
from libs.marketdata.tables import GATHERER_TABLES
from libs.store.pool import AnyConnection, map_store_errors

_NEXT = """
select b.lane, b.batch_no, b.batch_id,
       b.times_from[array_position(b.table_names, $3)] as time_from,
       b.times_to[array_position(b.table_names, $3)] as time_to
from lanes l
left join unnest($1::uuid[], $2::bigint[]) as cursor (lane, batch_no) on cursor.lane = l.lane
cross join lateral (
    select i.lane, i.batch_no, i.batch_id, i.table_names, i.times_from, i.times_to
    from ingest_batches i
    where i.lane = l.lane and i.batch_no > coalesce(cursor.batch_no, 0)
    order by i.batch_no limit $5
) b
where l.family = $4
  and (l.closed_at is null or l.last_batch_no is null or l.last_batch_no > coalesce(cursor.batch_no, 0))
order by b.lane, b.batch_no
limit $5
"""
"""Lane by lane from its cursor on, so that each is a range of the ledger's key and what was read before costs nothing;
a plain join lets the planner read the whole ledger at every wake-up."""
_HEADS = """
select l.lane, (select max(b.batch_no) from ingest_batches b where b.lane = l.lane) as head
from lanes l where l.family = $1
"""


@dataclass(frozen=True, slots=True)
class Tail:
    """The rows after the cursors, lane by lane in their order, and the cursors after them.

    is_end: nothing more was visible.
    """

    rows: tuple[Any, ...]
    cursors: Mapping[UUID, int]
    is_end: bool


async def read_heads(conn: AnyConnection, table: str) -> dict[UUID, int]:
    """Return cursors at the present end of every lane that can hold this table."""
    with map_store_errors():
        rows = await conn.fetch(_HEADS, _family(table))
    return {row["lane"]: row["head"] for row in rows if row["head"] is not None}


async def read_tail(
    conn: AnyConnection, table: str, cursors: Mapping[UUID, int], *, batches_max: int = 500
) -> Tail:
    """Return the rows of at most batches_max batches after the cursors; a lane without a cursor is read from its start.

    Raises:
        StoreUnavailable: nothing is read; ask again with the same cursors.
    """
    with map_store_errors():
        ledger = await conn.fetch(
            _NEXT, list(cursors), list(cursors.values()), table, _family(table), batches_max
        )
        moved = {row["lane"]: row["batch_no"] for row in ledger}
        held = [row for row in ledger if row["time_from"] is not None]
        rows = await _read_rows(conn, table, held) if held else ()
    return Tail(rows, {**cursors, **moved}, len(ledger) < batches_max)


async def _read_rows(conn: AnyConnection, table: str, held: list[Any]) -> tuple[Any, ...]:
    described = GATHERER_TABLES[table]
    columns = ", ".join(described.column_names)
    found = await conn.fetch(
        f"select {columns} from {table} where batch_id = any($1::bigint[])"
        f" and {described.time_column} between $2 and $3 order by batch_id, received_at",
        [row["batch_id"] for row in held],
        min(row["time_from"] for row in held),
        max(row["time_to"] for row in held),
    )
    make = ROW_TYPES[table]._make  # type: ignore[attr-defined]
    return tuple(make(row) for row in found)


def _family(table: str) -> str:
    family = GATHERER_TABLES[table].family
    if family is None:
        raise ValueError(f"{table} goes with every family; it cannot be followed alone")
    return family.value
