"""What a gatherer's database is told of merging, and where reading goes on after an operator's decision.

Production shows each lane how far it is merged (acknowledged) and what retention may forget (released). The first
follows the largest merge_no, the second is never taken back: who comes late changes nothing. Reading is in pages.py.
"""

from collections.abc import Mapping
from uuid import UUID

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
select l.lane, min(b.batch_no) as smallest
from lanes l left join unnest($1::uuid[], $2::bigint[]) as given (lane, cursor) using (lane)
join ingest_batches b on b.lane = l.lane and b.batch_no > coalesce(given.cursor, 0)
group by l.lane, given.cursor
having min(b.batch_no) > coalesce(given.cursor, 0) + 1
"""


async def write_acknowledgements(conn: AnyConnection, marks: Marks) -> None:
    """Show a gatherer how far production has merged its lanes; a smaller merge_no than shown changes nothing.

    Lanes this database does not know are left out.

    Raises:
        StoreUnavailable: the database is away; being one behind is normal.
    """
    await _mark(conn, _ACKNOWLEDGE, marks)


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
    next one is found, and quarantines again, when the reader comes to it.
    """
    with map_store_errors():
        rows = await conn.fetch(_SMALLEST_AFTER, list(cursors), list(cursors.values()))
    return {row["lane"]: row["smallest"] - 1 for row in rows}


async def _mark(conn: AnyConnection, statement: str, marks: Marks) -> None:
    if not marks:
        return
    numbers = list(marks.values())
    with map_store_errors():
        await conn.execute(
            statement,
            list(marks),
            [number[0] for number in numbers],
            [number[1] for number in numbers],
        )
