"""The ledger's past goes from the front of each lane, and whoever reads or writes a lane goes on as before."""

from dataclasses import replace
from uuid import UUID

from libs.store.acknowledgements import write_acknowledgements, write_releases
from libs.store.ledger_retention import Trimmed, trim_ledger
from libs.store.pages import read_page
from libs.store.pool import AnyConnection, Target, connect
from tests.integration.store.lanes_support import deltas, ledger_of, opened, writer_of
from tests.support.postgres import plain_only

WEEK_S = 604_800.0


async def _drop(conn: AnyConnection, lane: UUID, up_to: int, days: int = 8, first: int = 1) -> None:
    """Say that the facts of these batches went so many days ago."""
    await conn.execute(
        "update ingest_batches set dropped_at = clock_timestamp() - $4 * interval '1 day'"
        " where lane = $1 and batch_no between $2 and $3",
        lane, first, up_to, days,
    )  # fmt: skip


async def _numbers(conn: AnyConnection, lane: UUID) -> list[int]:
    return [row["batch_no"] for row in await ledger_of(conn, lane)]  # type: ignore[arg-type]


async def test_what_was_dropped_a_week_ago_goes(gatherer_db: Target) -> None:
    """Released and dropped longer ago than kept: gone; younger or not released: there. The services' role may do it."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 7):
            await writer.write(deltas(number))
        await write_releases(conn, {writer.lane: (4, 9)})
        await _drop(conn, writer.lane, 5)
        await _drop(conn, writer.lane, 3, days=6, first=3)
        async with connect(replace(gatherer_db, user="kd_writer")) as service:
            assert await trim_ledger(service, WEEK_S) == Trimmed(2, 0)
        assert await _numbers(conn, writer.lane) == [3, 4, 5, 6]
        await _drop(conn, writer.lane, 3)
        assert await trim_ledger(conn, WEEK_S) == Trimmed(2, 0)
        assert await _numbers(conn, writer.lane) == [5, 6]


async def test_a_batch_that_stays_keeps_all_behind_it(gatherer_db: Target) -> None:
    """A lane loses rows from the front only: a hole would quarantine the gatherer for a reader without a cursor."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 6):
            await writer.write(deltas(number))
        await write_releases(conn, {writer.lane: (5, 9)})
        await _drop(conn, writer.lane, 1)
        await _drop(conn, writer.lane, 5, first=3)
        assert await trim_ledger(conn, WEEK_S) == Trimmed(1, 0)
        assert await _numbers(conn, writer.lane) == [2, 3, 4, 5]
        page = await read_page(conn, {}, 100)
        assert [batch.batch_no for batch in page.batches] == [2, 3, 4, 5]


async def test_an_open_lane_keeps_its_newest_row(gatherer_db: Target) -> None:
    """Its writer goes on with the next number, and a reader without a cursor finds no hole."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 4):
            await writer.write(deltas(number))
        await write_releases(conn, {writer.lane: (3, 9)})
        await _drop(conn, writer.lane, 3, days=100)
        await trim_ledger(conn, WEEK_S)
        assert await _numbers(conn, writer.lane) == [3]
        assert (await writer.write(deltas(4))).batch_no == 4
        page = await read_page(conn, {}, 100)
        assert [(batch.batch_no, batch.dropped) for batch in page.batches] == [
            (3, True),
            (4, False),
        ]


async def test_a_finished_lane_goes_with_its_marks(gatherer_db: Target) -> None:
    """Closed, drained, without rows, old: gone with release and acknowledgement; before that a reader sees it drained."""
    async with opened(gatherer_db) as (pool, conn):
        writer, other = writer_of(pool), writer_of(pool)
        for number in range(1, 3):
            await writer.write(deltas(number))
        await other.write(deltas(9))
        await writer.close()
        await write_acknowledgements(conn, {writer.lane: (2, 7), other.lane: (1, 8)})
        await write_releases(conn, {writer.lane: (2, 7)})
        await _drop(conn, writer.lane, 2)
        assert await trim_ledger(conn, WEEK_S) == Trimmed(2, 0)
        read = {lane.lane: lane for lane in (await read_page(conn, {}, 100)).lanes}[writer.lane]
        assert read.drained
        await conn.execute(
            "update lanes set closed_at = closed_at - interval '8 days' where lane = $1",
            writer.lane,
        )
        assert await trim_ledger(conn, WEEK_S) == Trimmed(0, 1)
        for table in ("lanes", "lane_releases", "lane_acknowledgements"):
            assert writer.lane not in {r[0] for r in await conn.fetch(f"select lane from {table}")}
        assert [lane.lane for lane in (await read_page(conn, {}, 100)).lanes] == [other.lane]


async def test_the_largest_merge_no_shown_stays(gatherer_db: Target) -> None:
    """A gatherer at rest loses all its lanes but the one that shows how far production had numbered."""
    async with opened(gatherer_db) as (pool, conn):
        writers = [writer_of(pool) for _ in range(2)]
        for number, writer in enumerate(writers, 1):
            await writer.write(deltas(number))
            await writer.close()
            await write_acknowledgements(conn, {writer.lane: (1, number)})
            await write_releases(conn, {writer.lane: (1, number)})
            await _drop(conn, writer.lane, 1)
        await conn.execute("update lanes set closed_at = closed_at - interval '8 days'")
        assert await trim_ledger(conn, WEEK_S) == Trimmed(2, 1)
        assert [r[0] for r in await conn.fetch("select lane from lanes")] == [writers[1].lane]


async def test_a_lane_with_a_hole_stays(gatherer_db: Target) -> None:
    """Closed with a number that was never released and is not there: evidence of a fault is not swept away."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        await writer.write(deltas(1))
        await writer.close()
        await conn.execute("delete from ingest_batches")
        await conn.execute("update lanes set closed_at = closed_at - interval '80 days'")
        assert await trim_ledger(conn, WEEK_S) == Trimmed(0, 0)


async def test_facts_that_no_partition_ever_held_do_not_hold_the_lane(gatherer_db: Target) -> None:
    """Rows of an impossible time are never dropped with a partition; their ledger row goes by its age, once released."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 4):
            await writer.write(deltas(number))
        await conn.execute(
            "update ingest_batches set times_from = array[$1::bigint], times_to = array[$1::bigint]"
            " where batch_no = 1",
            4 * 10**18,
        )
        await _drop(conn, writer.lane, 3, first=2)
        await write_releases(conn, {writer.lane: (3, 9)})
        assert await trim_ledger(conn, WEEK_S) == Trimmed(0, 0)
        await conn.execute(
            "update ingest_batches set committed_at = committed_at - interval '8 days'"
        )
        assert await trim_ledger(conn, WEEK_S) == Trimmed(2, 0)


@plain_only
async def test_a_batch_whose_partition_is_still_there_stays(gatherer_db: Target) -> None:
    """Released and old, but its facts can still be read: only the drop of its partition ends it."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 3):
            await writer.write(deltas(number))
        await write_releases(conn, {writer.lane: (2, 9)})
        await conn.execute(
            "update ingest_batches set committed_at = committed_at - interval '80 days',"
            " times_from = array[now_us()], times_to = array[now_us()]"
        )
        assert await trim_ledger(conn, WEEK_S) == Trimmed(0, 0)


async def test_a_round_is_bounded(gatherer_db: Target) -> None:
    """At most so many rows at once; the next round goes on."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        for number in range(1, 7):
            await writer.write(deltas(number))
        await write_releases(conn, {writer.lane: (6, 9)})
        await _drop(conn, writer.lane, 6)
        done = [await trim_ledger(conn, WEEK_S, batches_max=2) for _ in range(4)]
        assert [trimmed.batches for trimmed in done] == [2, 2, 1, 0]
        assert await _numbers(conn, writer.lane) == [6]
