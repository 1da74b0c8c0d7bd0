"""What a gatherer's database is told of merging, and where reading goes on after an operator's decision.

Production shows each lane how far it is merged (acknowledged) and what retention may forget (released). The first
follows the largest merge_no, the second is never taken back: who comes late changes nothing. Reading is in pages.py.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple
from uuid import UUID

import asyncpg

from libs.store.pool import AnyConnection, map_store_errors

Marks = Mapping[UUID, tuple[int, int]]
"""lane -> (batch_no, merge_no)."""

_ACKNOWLEDGE = """
insert into lane_acknowledgements as mine (lane, batch_no, merge_no, acknowledged_at)
select lane, batch_no, merge_no, clock_timestamp()
from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as given (lane, batch_no, merge_no) join lanes using (lane)
order by lane
on conflict (lane) do update
set batch_no = excluded.batch_no, merge_no = excluded.merge_no, acknowledged_at = excluded.acknowledged_at
where mine.merge_no <= excluded.merge_no
returning merge_no
"""

_RELEASE = """
insert into lane_releases as mine (lane, released_batch_no, merge_no)
select lane, batch_no, merge_no
from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as given (lane, batch_no, merge_no) join lanes using (lane)
order by lane
on conflict (lane) do update
set released_batch_no = excluded.released_batch_no, merge_no = excluded.merge_no
where mine.released_batch_no < excluded.released_batch_no
"""

_LARGEST_MERGE_NO = """
select greatest(
    (select max(merge_no) from lane_acknowledgements), (select max(merge_no) from lane_releases), 0
)
"""

_SMALLEST_AFTER = """
select l.lane, coalesce(min(b.batch_no), l.last_batch_no + 1) as smallest
from lanes l left join unnest($1::uuid[], $2::bigint[]) as given (lane, cursor) using (lane)
left join lane_releases r using (lane)
left join ingest_batches b on b.lane = l.lane and b.batch_no > coalesce(given.cursor, 0)
group by l.lane, given.cursor, r.released_batch_no
having coalesce(min(b.batch_no), l.last_batch_no + 1) > coalesce(given.cursor, 0) + 1
   and (min(b.batch_no) is not null or coalesce(r.released_batch_no, 0) < l.last_batch_no)
"""

_LOST = """
select lane, cursor as merged, b.last, l.lane is not null as is_known
from unnest($1::uuid[], $2::bigint[], $3::boolean[]) as given (lane, cursor, is_young)
left join lanes l using (lane) left join lane_releases r using (lane)
cross join lateral (
    select coalesce(max(batch_no), 0) as last from ingest_batches i where i.lane = given.lane
) b
where b.last < cursor and coalesce(r.released_batch_no, 0) < cursor and (l.lane is not null or is_young)
order by is_young desc, lane
"""


class LostLane(NamedTuple):
    """A lane of which more was merged than its database holds, unreleased. last: its newest number there, 0 for none."""

    lane: UUID
    merged: int
    last: int
    is_known: bool


async def write_acknowledgements(conn: AnyConnection, marks: Marks) -> int:
    """Show a gatherer how far production has merged its lanes; a smaller merge_no than shown changes nothing.

    Lanes this database does not know are left out. Returns the largest merge_no written, 0 for none.

    Raises:
        StoreUnavailable: the database is away; being one behind is normal.
    """
    return max((int(row["merge_no"]) for row in await _mark(conn, _ACKNOWLEDGE, marks)), default=0)


async def write_releases(conn: AnyConnection, marks: Marks) -> None:
    """Release batches up to and including the number for retention; a release is never taken back.

    Raises:
        StoreUnavailable: the database is away.
    """
    await _mark(conn, _RELEASE, marks)


async def read_acknowledged_merge_no(conn: AnyConnection) -> int:
    """Return the largest merge_no any lane of this gatherer shows; 0 when none does.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        return int(await conn.fetchval(_LARGEST_MERGE_NO))


async def readmission_cursors(conn: AnyConnection, cursors: Mapping[UUID, int]) -> dict[UUID, int]:
    """Return new cursors for the lanes whose next number is missing below an existing one: before the smallest there is.

    For the command that re-admits a gatherer; the other lanes keep their cursors. It steps over one hole per lane: the
    next one is found, and quarantines again, when the reader comes to it. Of a closed lane whose end is missing there is
    no smallest number any more: it is given up to its end.
    """
    with map_store_errors():
        rows = await conn.fetch(_SMALLEST_AFTER, list(cursors), list(cursors.values()))
    return {row["lane"]: row["smallest"] - 1 for row in rows}


async def find_lost(
    conn: AnyConnection, cursors: Mapping[UUID, int], young: AbstractSet[UUID]
) -> list[LostLane]:
    """Return the lanes whose merged batches this database does not hold although nobody may have deleted them.

    A database that has one is an older copy of itself. Exact, but for lanes that it does not know at all: those may have
    been deleted long after their release, so only the young ones count.

    Args:
        cursors: lane -> last number merged.
        young: those merged so short a time ago that they cannot have been released.

    Raises:
        StoreUnavailable: the database is away.
    """
    if not cursors:
        return []
    with map_store_errors():
        rows = await conn.fetch(
            _LOST, list(cursors), list(cursors.values()), [lane in young for lane in cursors]
        )
    return [LostLane(**row) for row in rows]


async def find_unknown(conn: AnyConnection, lanes: AbstractSet[UUID]) -> set[UUID]:
    """Return the lanes that this database does not have.

    Raises:
        StoreUnavailable: the database is away.
    """
    if not lanes:
        return set()
    with map_store_errors():
        rows = await conn.fetch("select lane from lanes where lane = any($1)", list(lanes))
    return set(lanes) - {row["lane"] for row in rows}


async def _mark(conn: AnyConnection, statement: str, marks: Marks) -> list[asyncpg.Record]:
    if not marks:
        return []
    numbers = list(marks.values())
    with map_store_errors():
        return await conn.fetch(
            statement,
            list(marks),
            [number[0] for number in numbers],
            [number[1] for number in numbers],
        )
