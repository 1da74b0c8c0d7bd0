"""What a starting process does for the one that died under its name: close its lanes, write down its gaps.

And what the lane says that a dead process wrote to last, which decides what of its spool is still to be committed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from libs.flow.placement import kind_of
from libs.marketdata.rows import GapRow, gap
from libs.store.batches import Digest
from libs.store.lane_closing import close_dead_lanes
from libs.store.pool import AnyConnection, map_store_errors
from libs.store.spool_notes import Cursor
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
_LAST = """
select coalesce((select max(batch_no) from ingest_batches b where b.lane = l.lane), 0) from lanes l where l.lane = $1
"""
_DIGESTS = """
select table_names, row_counts, row_hashes from ingest_batches where lane = $1 and batch_no > $2
order by batch_no limit $3
"""
_DIGESTS_MAX = 20_000
"""Batches committed behind the last cursor that are told apart from those that were not; what is beyond is doubled."""
RESTATED = "listen_opened"
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


BatchKey = tuple[tuple[str, int, int], ...]
"""Name, rows and hash of a batch's tables."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a dead process's last lane says.

    is_sound: everything it had confirmed there is there. went_back: it is not. digests: of what it committed and had no
    time to note.
    """

    is_sound: bool
    went_back: bool
    digests: frozenset[BatchKey]


async def look_at_lane(conn: AnyConnection, cursor: Cursor | None) -> Proof:
    """Compare the lane with what the process had noted; after the lane was closed.

    Raises:
        StoreUnavailable: the database is away; call again.
    """
    if cursor is None:
        return Proof(is_sound=False, went_back=False, digests=frozenset())
    with map_store_errors():
        last: int | None = await conn.fetchval(_LAST, cursor.lane)
        rows = await conn.fetch(_DIGESTS, cursor.lane, cursor.confirmed, _DIGESTS_MAX)
    went_back = (last or 0) < cursor.confirmed
    digests = frozenset(key_of(Digest(*map(tuple, row))) for row in rows)
    return Proof(last is not None and not went_back, went_back, digests)


def key_of(digest: Digest) -> BatchKey:
    """What tells batches apart though one of them restated openings."""
    tables = zip(digest.table_names, digest.row_counts, digest.row_hashes, strict=True)
    return tuple(table for table in tables if table[0] != RESTATED)
