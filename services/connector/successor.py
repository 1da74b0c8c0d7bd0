"""What a starting process does for the one that died under its name: close its lanes, write down its gaps.

And what the lane says that a dead process wrote to last, which decides what of its spool is still to be committed.
"""

from dataclasses import dataclass
from uuid import UUID

from libs.marketdata.rows import GapRow
from libs.store.batches import Digest
from libs.store.deaths import untold_deaths
from libs.store.lane_closing import close_lanes
from libs.store.pool import AnyConnection, map_store_errors
from libs.store.spool_notes import Cursor

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


async def succeed(conn: AnyConnection, shard: str, instance: UUID, now: int) -> list[GapRow]:
    """Close the open lanes of earlier instances; return a `process_died` gap for every sid that had not been closed.

    All of it or nothing: lanes that were closed by a call that failed would be nobody's the next time.

    Raises:
        StoreUnavailable: the database is away; call again.
    """
    with map_store_errors():
        # What close_dead_lanes does, with the reading behind it in one transaction.
        async with conn.transaction(isolation="read_committed"):
            lanes = await close_lanes(conn, process=shard, survivor=instance)
            return await untold_deaths(conn, shard, lanes, now, received_to=now)


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
