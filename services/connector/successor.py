"""What a starting process does for the one that died under its name: close its lanes, write down its gaps."""

from collections.abc import Iterable
from uuid import UUID

from libs.flow.placement import kind_of
from libs.marketdata.rows import GapRow, gap
from libs.store.lanes import close_dead_lanes
from libs.store.pool import AnyConnection, map_store_errors
from services.connector.judge import CHANNELS

_LAST_BATCHES = 200
"""Batches of a lane that are looked at: every sid that still received has a range among them."""
_RECENT = """
with recent as (
    select batch_id from (
        select batch_id, row_number() over (partition by lane order by batch_no desc) as nth
        from ingest_batches where lane = any($1)
    ) b where nth <= $2
)
"""
_UNCLOSED = """
select r.connection, r.sid, r.channel, max(r.seq_to) as seq, max(r.sent_to) as sent_at,
    max(r.received_at) as received_at
from listen_ranges r
where r.batch_id in (select batch_id from recent)
  and not exists (
    select from listen_closed c
    where c.connection = r.connection and c.sid = r.sid and c.ticker is null
      and c.batch_id >= (select min(batch_id) from recent) and c.reason not in ('seq', 'rejected', 'silent'))
group by r.connection, r.sid, r.channel
order by r.connection, r.sid
"""
_SLOTS = """
select connection, sid, min(slot) as slot from (
    select connection, sid, slot from listen_opened where batch_id in (select batch_id from recent)
    union
    select d.connection, d.sid, m.slot from orderbook_deltas d join markets m using (ticker)
    where d.batch_id in (select batch_id from recent) and m.slot is not null
) known
group by connection, sid having count(distinct slot) = 1
"""
_OWN = "select slot from slot_assignments where shard = $1"


async def succeed(conn: AnyConnection, shard: str, instance: UUID, now: int) -> list[GapRow]:
    """Close the open lanes of earlier instances; return a `process_died` gap for every sid that had not been closed.

    A gap names its slot where the last batches, or the rows that bear our name, leave no doubt.

    Raises:
        StoreUnavailable: the database is away; call again.
    """
    lanes = await close_dead_lanes(conn, process=shard, survivor=instance)
    if not lanes:
        return []
    with map_store_errors():
        rows = await conn.fetch(_RECENT + _UNCLOSED, lanes, _LAST_BATCHES)
        known = await conn.fetch(_RECENT + _SLOTS, lanes, _LAST_BATCHES) if rows else []
        own = [row["slot"] for row in await conn.fetch(_OWN, shard)]
    slots = {(row["connection"], row["sid"]): row["slot"] for row in known}
    return [
        gap(
            now,
            row["channel"],
            "process_died",
            slot=slots.get((row["connection"], row["sid"])) or _only_slot(row["channel"], own),
            detail=shard,
            from_ts=row["sent_at"],
            received_from=row["received_at"],
            received_to=now,
            seq_from=row["seq"],
            connection=row["connection"],
            sid=row["sid"],
        )
        for row in rows
    ]


def _only_slot(channel: str, slots: Iterable[str]) -> str:
    """Return the one slot among these that carries a channel; nothing when that is not certain."""
    found = [slot for slot in slots if channel in CHANNELS.get(kind_of(slot), ())]
    return found[0] if len(found) == 1 else ""
