"""Reading a gatherer's ledger on a real server: order, fairness, and what shows that it is not sound."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from libs.marketdata.binary import codec
from libs.marketdata.rows import GapRow, SnapshotRow
from libs.marketdata.units import HOUR
from libs.store import pages
from libs.store.acknowledgements import (
    read_acknowledged_merge_no,
    readmission_cursors,
    write_acknowledgements,
    write_releases,
)
from libs.store.batches import seal
from libs.store.errors import GathererUnsound, SchemaMismatch
from libs.store.lane_closing import close_dead_lanes
from libs.store.lanes import LaneWriter
from libs.store.page_query import rows_query
from libs.store.pages import (
    PLAN_BY_NUMBER,
    Page,
    read_identity,
    read_page,
)
from libs.store.partitions import ensure_partitions
from libs.store.pool import AnyConnection, Connection, Pool, Target, connect
from libs.store.summaries import Summaries
from tests.integration.store.lanes_support import (
    CONNECTION,
    NOON,
    HeldCommits,
    delta,
    deltas,
    ledger_of,
    listened,
    opened,
    seqs,
    trade,
    writer_of,
)

SNAPSHOT = SnapshotRow(
    NOON, NOON, -7, True, True, "ws", "TICKER", CONNECTION, 3, 1, NOON, None, None, None,
    ((1_000, 5), (52_000, 4703)), (),
)  # fmt: skip
GAP = GapRow(
    NOON, 0, "trade", "trade/0", "silent", "", None, 1, 2, None, None, None, None, None, None, None
)


async def filled(pool: Pool, batches: int, *, rows: int = 1, first: int = 0) -> LaneWriter:
    """A lane of that many batches; the deltas' seq runs on from `first`."""
    writer = writer_of(pool)
    for number in range(batches):
        await writer.write(deltas(first + number * rows, rows))
    return writer


async def follow(conn: Connection, cursors: Mapping[UUID, int], rows_max: int) -> list[Page]:
    """Read pages until nothing is left."""
    pages, reached = [], dict(cursors)
    while (page := await read_page(conn, reached, rows_max)).batches:
        pages.append(page)
        reached |= {lane.lane: lane.read for lane in page.lanes}
    return pages


async def test_rows_come_back_as_they_were_written(gatherer_db: Target) -> None:
    """Every table's rows and payloads of a batch, whatever the columns; the lane's state beside them."""
    async with opened(gatherer_db) as (pool, conn):
        writer = writer_of(pool)
        given: dict[str, list[Any]] = {
            "orderbook_deltas": [delta(1), delta(2)],
            "trades": [trade(1)],
            "orderbook_snapshots": [SNAPSHOT, SNAPSHOT._replace(yes=None, no=None, sid=None)],
            "listen_ranges": [listened(1, 2)],
            "gaps": [GAP],
        }
        done = await writer.write(seal(given))
        page = await read_page(conn, {}, 5000)
        (batch,) = page.batches
        assert (batch.lane, batch.batch_no, batch.batch_id) == (writer.lane, 1, done.batch_id)
        assert not batch.dropped
        for name in ("gaps", "listen_ranges"):
            given[name] = [row._replace(row_no=1) for row in given[name]]
        assert batch.rows == given
        assert batch.payloads["trades"] == [codec("trades").encode(trade(1))]
        (lane,) = page.lanes
        assert (lane.lane, lane.family, lane.last, lane.read) == (writer.lane, "deltas", 1, 1)
        assert not lane.drained
        await writer.close()


async def test_pages_are_whole_batches_within_the_limit(gatherer_db: Target) -> None:
    """A page ends before the batch that does not fit; a batch larger than the limit makes a page of its own."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 5, rows=4)
        await writer.write(deltas(100, 30))
        await writer.write(deltas(200, 4))
        pages = await follow(conn, {}, 10)
        numbers = [[batch.batch_no for batch in page.batches] for page in pages]
        assert numbers == [[1, 2], [3, 4], [5], [6], [7]]
        assert seqs(pages[1].batches) == list(range(8, 16))
        await writer.close()


async def test_a_backlog_does_not_keep_other_lanes_waiting(gatherer_db: Target) -> None:
    """A lane with hundreds of batches and a lane with one: the one is in the first page."""
    async with opened(gatherer_db) as (pool, conn):
        full = await filled(pool, 300)
        small = await filled(pool, 1, first=1000)
        page = await read_page(conn, {}, 20)
        assert 1000 in seqs(page.batches)
        assert len(page.batches) == 20
        read = [n for page in await follow(conn, {}, 20) for n in seqs(page.batches)]
        assert sorted(read) == [*range(300), 1000]
        await full.close()
        await small.close()


async def test_closed_lanes_are_read_to_their_end_and_then_left_alone(gatherer_db: Target) -> None:
    """A closed lane is looked at while its cursor is before its last number, an open one always."""
    async with opened(gatherer_db) as (pool, conn):
        writer, idle = await filled(pool, 3), writer_of(pool)
        await idle.open()
        await writer.close()
        page = await read_page(conn, {writer.lane: 1}, 5000)
        assert [batch.batch_no for batch in page.batches] == [2, 3]
        states = {lane.lane: lane for lane in page.lanes}
        assert states[writer.lane].drained
        assert not states[idle.lane].drained
        after = await read_page(conn, {writer.lane: 3}, 5000)
        assert [lane.lane for lane in after.lanes] == [idle.lane]
        await idle.close()


async def test_a_slow_commit_delays_its_own_lane_only(gatherer_db: Target) -> None:
    """Batches committed later on other lanes are read while one is still uncommitted; it follows when it commits."""
    async with opened(gatherer_db) as (pool, conn), opened(gatherer_db) as (_, reader):
        commits = HeldCommits(conn)
        await commits.install()
        slow, quick = await filled(pool, 1), await filled(pool, 1, first=10)
        await commits.hold()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(slow.write(deltas(1)))
            await commits.until_waiting()
            # A later ledger row by hand: the trigger would hold quick's commit too.
            await reader.execute("set session_replication_role = replica")
            await reader.execute(
                "insert into ingest_batches select lane, 2, nextval('batch_ids'), now(), schema_version, '{}', '{}', '{}',"
                " '{}', '{}', '[]' from ingest_batches where lane = $1",
                quick.lane,
            )
            page = await read_page(reader, {}, 5000)
            assert sorted(seqs(page.batches)) == [0, 10]
            numbers = {batch.lane: batch.batch_no for batch in page.batches}
            assert numbers == {slow.lane: 1, quick.lane: 2}
            await commits.let_go()
        assert sorted(seqs((await read_page(reader, {}, 5000)).batches)) == [0, 1, 10]
        await slow.close()
        await quick.close()


@pytest.mark.parametrize(
    ("tampering", "detail"),
    [
        ("update orderbook_deltas set price = price + 1 where seq = 11", "hash"),
        ("update orderbook_deltas set sent_at = 5 where seq = 11", "hash"),
        ("delete from orderbook_deltas where seq = 11", "count"),
        ("insert into orderbook_deltas select * from orderbook_deltas where seq = 11", "count"),
        ("update orderbook_deltas set seq = 10 where seq = 11", "hash"),
        ("update orderbook_deltas set exchange_ts = exchange_ts + 1 where seq = 11", "count"),
        ("delete from ingest_batches where batch_no = 2", "hole"),
    ],
)
async def test_rows_that_do_not_fit_the_ledger_are_noticed(
    gatherer_db: Target, tampering: str, detail: str
) -> None:
    """A row changed, lost or doubled behind our back, or a number gone, names the lane and the number."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 3, rows=10)
        await conn.execute(tampering)
        with pytest.raises(GathererUnsound) as caught:
            await read_page(conn, {}, 5000)
        fault = caught.value
        assert (fault.lane, fault.batch_no, fault.detail) == (writer.lane, 2, detail)
        assert not fault.retryable
        first = await read_page(conn, {}, 10)
        assert [batch.batch_no for batch in first.batches] == [1]
        await close_dead_lanes(conn, process="connector-a-0")
        await writer.close()


async def test_readmission_steps_over_a_hole(gatherer_db: Target) -> None:
    """After a hole the command's cursor reads from the smallest number there is; other lanes keep theirs."""
    async with opened(gatherer_db) as (pool, conn):
        broken, sound = await filled(pool, 6), await filled(pool, 2, first=50)
        await conn.execute(
            "delete from ingest_batches where lane = $1 and batch_no in (3, 4)", broken.lane
        )
        cursors = {broken.lane: 2, sound.lane: 1}
        with pytest.raises(GathererUnsound, match="hole"):
            await read_page(conn, cursors, 5000)
        stepped = await readmission_cursors(conn, cursors)
        assert stepped == {broken.lane: 4}
        page = await read_page(conn, cursors | stepped, 5000)
        assert sorted(seqs(page.batches)) == [4, 5, 51]
        await broken.close()
        await sound.close()


async def test_numbers_deleted_after_release_are_no_hole(gatherer_db: Target) -> None:
    """A lane never read starts behind what was released and deleted; unreleased numbers missing are a hole."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 5)
        await write_releases(conn, {writer.lane: (3, 77)})
        await conn.execute("delete from ingest_batches where batch_no <= 3")
        page = await read_page(conn, {}, 5000)
        assert [batch.batch_no for batch in page.batches] == [4, 5]
        await conn.execute("delete from ingest_batches where batch_no = 4")
        with pytest.raises(GathererUnsound, match="hole"):
            await read_page(conn, {}, 5000)
        await writer.close()


async def test_the_end_of_a_closed_lane_is_a_number_too(gatherer_db: Target) -> None:
    """A closed lane whose last rows are gone unreleased is a hole; released and deleted, it is drained."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 3)
        await writer.close()
        await conn.execute("delete from ingest_batches where batch_no = 3")
        with pytest.raises(GathererUnsound, match="hole") as caught:
            await read_page(conn, {writer.lane: 2}, 5000)
        assert caught.value.batch_no == 3
        await write_releases(conn, {writer.lane: (3, 1)})
        await conn.execute("delete from ingest_batches")
        page = await read_page(conn, {}, 5000)
        assert (page.batches, [lane.drained for lane in page.lanes]) == ([], [True])


async def test_a_dropped_batch_is_passed_on_without_rows(gatherer_db: Target) -> None:
    """dropped_at: the number is read, nothing is looked for, the lane goes on."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 3, rows=2)
        await conn.execute("update ingest_batches set dropped_at = now() where batch_no = 2")
        await conn.execute("delete from orderbook_deltas where seq in (2, 3)")
        batches = (await read_page(conn, {}, 5000)).batches
        assert [(batch.batch_no, batch.dropped) for batch in batches] == [
            (1, False),
            (2, True),
            (3, False),
        ]
        assert batches[1].rows == {}
        assert seqs(batches) == [0, 1, 4, 5]
        await writer.close()


async def test_a_chunk_dropped_while_it_is_read_is_not_unsound(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention between the ledger query and the rows: the snapshot misses the rows, the page is read again."""
    async with opened(gatherer_db) as (pool, conn), connect(gatherer_db) as reader:
        writer = await filled(pool, 2)
        read_content = pages._read_content
        drops = iter(["truncate orderbook_deltas", "update ingest_batches set dropped_at = now()"])

        async def late(reader: AnyConnection, chosen: Sequence[asyncpg.Record]) -> pages._Content:
            async with conn.transaction():
                for statement in drops:
                    await conn.execute(statement)
            return await read_content(reader, chosen)

        monkeypatch.setattr(pages, "_read_content", late)
        page = await read_page(reader, {}, 5000)
        assert [(batch.batch_no, batch.dropped) for batch in page.batches] == [(1, True), (2, True)]
        await writer.close()


async def test_a_newer_schema_is_refused(gatherer_db: Target) -> None:
    """A batch of a schema this code does not know is not misread as an unsound one."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 1)
        await conn.execute("update ingest_batches set schema_version = schema_version + 1")
        with pytest.raises(SchemaMismatch, match="schema"):
            await read_page(conn, {}, 5000)
        await writer.close()


async def test_marks_only_go_forward(gatherer_db: Target) -> None:
    """Acknowledgements follow the larger merge_no, releases the larger number; unknown lanes are left out."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 1)
        assert await read_acknowledged_merge_no(conn) == 0
        await write_acknowledgements(conn, {writer.lane: (5, 100), uuid4(): (1, 900)})
        await write_acknowledgements(conn, {writer.lane: (4, 99)})
        row = await conn.fetchrow("select * from lane_acknowledgements")
        assert row is not None
        assert (row["lane"], row["batch_no"], row["merge_no"]) == (writer.lane, 5, 100)
        await write_acknowledgements(conn, {writer.lane: (3, 101)})
        assert await read_acknowledged_merge_no(conn) == 101
        await write_releases(conn, {writer.lane: (3, 50)})
        await write_releases(conn, {writer.lane: (2, 60)})
        await write_releases(conn, {})
        assert await conn.fetchval("select released_batch_no from lane_releases") == 3
        await writer.close()


async def test_identity_is_the_one_migrate_wrote(gatherer_db: Target) -> None:
    """The identity of the database; none is a schema that does not fit."""
    async with opened(gatherer_db) as (_, conn):
        given = uuid4()
        await conn.execute("delete from gatherer_identity")
        with pytest.raises(SchemaMismatch, match="identity"):
            await read_identity(conn)
        await conn.execute(
            "insert into gatherer_identity (identity, zone, created_at) values ($1, 'zone-b', now())",
            given,
        )
        identity = await read_identity(conn)
        assert (identity.identity, identity.zone) == (given, "zone-b")


async def test_the_rows_of_a_page_are_found_by_their_number(gatherer_db: Target) -> None:
    """Among thousands of batches, without statistics, the plan reads a few pages of the one partition of their time."""
    async with connect(gatherer_db) as conn:
        await ensure_partitions(conn, "gatherer", NOON)
        # 4,000 batches of 50 rows over four hours.
        await conn.execute(
            "insert into orderbook_deltas (batch_id, exchange_ts, received_at, size_delta, seq, price, occurrence, sid,"
            " side, connection, ticker)"
            " select n / 50, $1 + n * 72000::bigint, 1, 1, n, 1, 1, 1, true, $2, 'TICKER' from generate_series(0, 199999) n",
            NOON, CONNECTION,
        )  # fmt: skip
        assert await Summaries().keep_up(conn) > 50
        at = NOON + 2000 * 50 * 72_000
        parts = [(number, at, at + 60_000_000) for number in (2000, 2001, 2005)]
        async with conn.transaction():
            await conn.execute(PLAN_BY_NUMBER)
            query = "explain (analyze, timing off) " + rows_query("orderbook_deltas", parts)
            plan = "\n".join(row[0] for row in await conn.fetch(query))
        assert "Bitmap Index Scan" in plan, plan
        assert "Seq Scan" not in plan, plan
        assert len(set(re.findall(r"Heap Scan on (\S+)", plan))) == 1, plan
        # From PostgreSQL 18 on with two decimals.
        assert re.search(r"actual rows=150(\.00)? ", plan), plan
        looked_at = sum(
            map(int, re.findall(r"Rows Removed by (?:Index Recheck|Filter): (\d+)", plan))
        )
        assert looked_at < 10_000, plan


async def test_batches_hours_apart_leave_the_chunks_between_them_alone(gatherer_db: Target) -> None:
    """A backlog beside the present: exactly the chunks of their times are read, on either kind of server."""
    async with opened(gatherer_db) as (pool, conn):
        for hour in range(6):
            await ensure_partitions(conn, "gatherer", NOON + hour * HOUR)
        writer = writer_of(pool)
        moments = [NOON, NOON + 5, NOON + 4 * HOUR, NOON + HOUR // 2, NOON + 4 * HOUR + 7]
        for number, moment in enumerate((*moments, NOON + 2 * HOUR, NOON + 3 * HOUR)):
            await writer.write(seal({"orderbook_deltas": [delta(number, exchange_ts=moment)]}))
        ledger = await ledger_of(conn, writer.lane)
        parts = [(row["batch_id"], row["times_from"][0], row["times_to"][0]) for row in ledger[:5]]
        async with conn.transaction():
            await conn.execute(PLAN_BY_NUMBER)
            query = rows_query("orderbook_deltas", parts)
            plan = "\n".join(row[0] for row in await conn.fetch("explain (costs off) " + query))
        read = set(re.findall(r"Heap Scan on (\S+)", plan))
        tables = await conn.fetch(
            "select distinct tableoid::regclass::text as name from orderbook_deltas where seq < 5"
        )
        assert {name.split(".")[-1] for name in read} == {
            row["name"].split(".")[-1] for row in tables
        }, plan
        assert len(tables) == 2
        page = await read_page(conn, {}, 5000)
        assert seqs(page.batches) == list(range(7))
        assert len(rows_query("orderbook_deltas", parts[:2]).split(" or ")) == 1
        await writer.close()


async def test_new_rows_are_summarised_once(gatherer_db: Target) -> None:
    """What has grown since last time is summarised, by the user whom services are; nothing new is nothing done."""
    async with opened(replace(gatherer_db, user="kd_writer")) as (pool, conn):
        summaries = Summaries()
        await summaries.keep_up(conn)
        writer = await filled(pool, 2, rows=3000)
        assert await summaries.keep_up(conn) > 0
        assert await summaries.keep_up(conn) == 0
        await writer.close()


async def test_writers_and_readers_need_no_more_than_their_roles(gatherer_db: Target) -> None:
    """The whole protocol runs as kd_writer on the one side and kd_reader on the other."""
    writing, reading = (replace(gatherer_db, user=user) for user in ("kd_writer", "kd_reader"))
    async with opened(writing) as (pool, conn), connect(reading) as reader:
        writer = await filled(pool, 2)
        page = await read_page(reader, {}, 5000)
        assert seqs(page.batches) == [0, 1]
        await write_acknowledgements(reader, {writer.lane: (2, 7)})
        await write_releases(reader, {writer.lane: (1, 7)})
        assert await read_acknowledged_merge_no(reader) == 7
        assert (await read_identity(reader)).zone == "a"
        await write_acknowledgements(reader, {writer.lane: (2, 8)})
        assert await close_dead_lanes(conn, process="connector-a-0") == [writer.lane]
        await writer.close()


async def test_an_unread_backlog_of_thousands_is_read_page_by_page(gatherer_db: Target) -> None:
    """Thousands of ledger rows: the query for a page reads the lane's next ones by the primary key."""
    async with opened(gatherer_db) as (pool, conn):
        writer = await filled(pool, 5)
        await conn.execute(
            "insert into ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from,"
            " times_to, sids, dropped_at) select $1, n, 1, '{}', '{}', '{}', '{}', '{}', '[]', now()"
            " from generate_series(6, 5000) n",
            writer.lane,
        )
        await conn.execute("analyze")
        page = await read_page(conn, {writer.lane: 3}, 5000)
        assert [batch.batch_no for batch in page.batches] == list(range(4, 4 + 256))
        assert len(await ledger_of(conn, writer.lane)) == 5000
        await writer.close()
