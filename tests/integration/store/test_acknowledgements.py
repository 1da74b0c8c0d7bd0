"""What a gatherer shows of merging, held against what production has of it."""

from uuid import UUID, uuid4

from libs.store.acknowledgements import (
    LostLane,
    find_lost,
    readmission_cursors,
    write_acknowledgements,
    write_releases,
)
from libs.store.ledger_retention import trim_ledger
from libs.store.pages import read_page
from libs.store.pool import Pool, Target
from tests.integration.store.lanes_support import deltas, opened, writer_of


async def closed_lane(pool: Pool, batches: int) -> UUID:
    """A lane of that many batches whose process has ended."""
    writer = writer_of(pool)
    for number in range(batches):
        await writer.write(deltas(number))
    await writer.close()
    return writer.lane


async def test_a_database_without_what_was_merged_of_it_is_an_older_copy(
    gatherer_db: Target,
) -> None:
    """A lane that ends early, open or closed, and a young one that is unknown; nothing that retention may have deleted."""
    async with opened(gatherer_db) as (pool, conn):
        whole, short, gone = [await closed_lane(pool, 3) for _ in range(3)]
        writer, unknown, ancient = writer_of(pool), uuid4(), uuid4()
        await writer.write(deltas(1))
        everything = dict.fromkeys((whole, short, gone, writer.lane, unknown, ancient), 3)
        await conn.execute(
            "delete from ingest_batches where batch_no > 2 and lane = any($1)", [short]
        )
        await conn.execute("delete from ingest_batches where lane = $1", gone)
        await write_releases(conn, {gone: (3, 1)})
        lost = await find_lost(conn, everything, {unknown, short})
        assert sorted(lost) == sorted(
            [
                LostLane(short, 3, 2, True),
                LostLane(writer.lane, 3, 1, True),
                LostLane(unknown, 3, 0, False),
            ]
        )
        assert await find_lost(conn, {whole: 3, gone: 3}, {whole, gone}) == []
        assert await find_lost(conn, {}, set()) == []
        await writer.close()


async def test_a_lane_trimmed_after_its_release_is_not_missed(gatherer_db: Target) -> None:
    """Retention deletes ledger rows, then the lane with its marks: the database never looks like an older copy."""
    async with opened(gatherer_db) as (pool, conn):
        lane = await closed_lane(pool, 3)
        await write_acknowledgements(conn, {lane: (3, 7)})
        await write_releases(conn, {lane: (3, 7)})
        await conn.execute("update ingest_batches set dropped_at = now() - interval '1 hour'")
        assert (await trim_ledger(conn, 0.0)).batches == 3
        assert await find_lost(conn, {lane: 3}, set()) == []
        # The lane that shows the largest merge_no stays; another one takes that part.
        other = await closed_lane(pool, 1)
        await write_acknowledgements(conn, {other: (1, 8)})
        assert (await trim_ledger(conn, 0.0)).lanes == 1
        assert await find_lost(conn, {lane: 3, other: 1}, {other}) == []


async def test_what_was_written_is_returned(gatherer_db: Target) -> None:
    """The largest merge_no that the database took: not of a lane it does not know, not one below what it shows."""
    async with opened(gatherer_db) as (pool, conn):
        one, two = await closed_lane(pool, 1), await closed_lane(pool, 1)
        assert await write_acknowledgements(conn, {one: (1, 5), two: (1, 6), uuid4(): (1, 9)}) == 6
        assert await write_acknowledgements(conn, {one: (1, 4), two: (1, 3)}) == 0
        assert await write_acknowledgements(conn, {}) == 0


async def test_a_missing_end_of_a_closed_lane_is_stepped_over(gatherer_db: Target) -> None:
    """There is no smallest number behind it: the lane is given up to its end, and drained; released ends are no hole."""
    async with opened(gatherer_db) as (pool, conn):
        broken, released, sound = [await closed_lane(pool, 4) for _ in range(3)]
        await conn.execute(
            "delete from ingest_batches where batch_no > 2 and lane = any($1)", [broken, released]
        )
        await write_releases(conn, {released: (4, 1)})
        cursors = {broken: 2, released: 2, sound: 2}
        stepped = await readmission_cursors(conn, cursors)
        assert stepped == {broken: 4}
        page = await read_page(conn, cursors | stepped, 5000)
        assert {(lane.lane, lane.drained) for lane in page.lanes} == {
            (released, True),
            (sound, True),
        }
