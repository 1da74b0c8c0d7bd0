"""Level 2 of a gatherer on a database with rows, and old chunks as columns (KALSHI_TEST_TIMESCALE=1)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from alembic import command
from sqlalchemy import Connection

from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.marketdata.units import DAY, HOUR
from libs.store.batches import seal
from libs.store.columnstore import Converted, convert_acknowledged
from libs.store.lanes import LaneWriter
from libs.store.pages import read_page
from libs.store.partition_drop import drop_partitions_released
from libs.store.partitions import has_timescale
from libs.store.pool import AnyConnection, Pool, Target, connect, open_pool
from libs.store.schema import LEVELS, check_level, read_level
from migrations import upgrade as upgrading
from migrations.upgrade import upgrade
from services.local.postgres import EmbeddedPostgres
from tests.integration.store.lanes_support import delta
from tests.support.postgres import with_timescale

NOW = 1_900_000_800_000_000
timescale_only = pytest.mark.skipif(not with_timescale(), reason="plain PostgreSQL has no columns")


async def test_a_database_of_level_1_with_rows_becomes_this_level(
    postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new level only adds: rows stay, code of level 1 still fits, and the new tables are the services' to use."""

    def first_only(connection: Connection, config: object) -> None:
        config.attributes["connection"] = connection  # type: ignore[attr-defined]
        command.upgrade(config, "g0001")  # type: ignore[arg-type]

    target = await postgres_server.create_database("test_level_1")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(upgrading, "_run_alembic", first_only)
            assert await upgrade(target, "gatherer")
        async with connect(target) as conn:
            assert await read_level(conn) == (1, 1)
            await conn.execute(
                "INSERT INTO trades VALUES (1, $1, $1, 1, 1, 1, true, 't', 'M', NULL, NULL, NULL, NULL, NULL)", NOW
            )  # fmt: skip
        assert await upgrade(target, "gatherer")
        async with connect(target) as conn:
            assert await read_level(conn) == (LEVELS["gatherer"], 4)
            await check_level(conn, "gatherer")
            assert await conn.fetchval("SELECT count(*) FROM trades") == 1
            await conn.execute("SET ROLE kd_writer")
            await conn.execute("INSERT INTO trade_repairs (from_ts, to_ts, due_at, reached_ts, cause) VALUES (1,2,3,2,'')")  # fmt: skip
            await conn.execute("INSERT INTO book_checks (ticker, outcome, requested_at, received_at) VALUES ('M','agree',1,2)")  # fmt: skip
    finally:
        async with connect(postgres_server.target()) as conn:
            await conn.execute("DROP DATABASE test_level_1 WITH (FORCE)")


@asynccontextmanager
async def writing(target: Target) -> AsyncIterator[tuple[Pool, LaneWriter]]:
    """A lane of deltas, as a service opens it."""
    async with open_pool(replace(target, user="kd_writer")) as pool:
        lane = LaneWriter(pool, family=Family.DELTAS, process="test", instance=uuid4())
        yield pool, lane
        await lane.close()


async def _acknowledge(conn: AnyConnection, lane: UUID | None, batch_no: int) -> None:
    await conn.execute(
        "INSERT INTO lane_acknowledgements (lane, batch_no, merge_no) VALUES ($1, $2, 1)"
        " ON CONFLICT (lane) DO UPDATE SET batch_no = $2",
        lane, batch_no,
    )  # fmt: skip


async def _states(conn: AnyConnection) -> list[tuple[int, bool]]:
    rows = await conn.fetch(
        "SELECT range_start_integer, is_compressed FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'orderbook_deltas' ORDER BY 1"
    )
    return [(row[0], row[1]) for row in rows]


async def test_plain_postgresql_has_nothing_to_convert(gatherer_db: Target) -> None:
    """Without the extension the turn does nothing, whatever is there."""
    async with connect(gatherer_db) as conn:
        if not await has_timescale(conn):
            assert await convert_acknowledged(conn, NOW) == Converted()


@timescale_only
async def test_integer_now_and_intervals_are_set(gatherer_db: Target) -> None:
    """Every table of facts is a hypertable of its own width that knows what the present is."""
    async with connect(gatherer_db) as conn:
        rows = await conn.fetch(
            "SELECT hypertable_name, integer_interval, integer_now_func FROM timescaledb_information.dimensions"
        )
        found = {row[0]: (row[1], row[2]) for row in rows}
        assert found == {name: (table.chunk, "now_us") for name, table in GATHERER_TABLES.items()}


@timescale_only
async def test_only_acknowledged_chunks_are_converted(gatherer_db: Target) -> None:
    """A chunk waits for its end, for an hour more, and for the acknowledgement of every batch that touches it."""
    async with writing(gatherer_db) as (pool, lane), pool.acquire() as conn:
        await lane.write(
            seal({"orderbook_deltas": [delta(n, exchange_ts=NOW + n) for n in range(1, 40)]})
        )
        await lane.write(seal({"orderbook_deltas": [delta(99, exchange_ts=NOW + HOUR)]}))
        later = NOW + 2 * HOUR
        result = await convert_acknowledged(conn, later)
        assert {why for _, why in result.kept} == {"a batch is not acknowledged"}
        await _acknowledge(conn, lane.lane, 1)
        assert (await convert_acknowledged(conn, later - 1)).converted == ()
        result = await convert_acknowledged(conn, later)
        assert [(p.table, p.start) for p in result.converted] == [("orderbook_deltas", NOW)]
        assert await _states(conn) == [(NOW, True), (NOW + HOUR, False)]
        assert (await convert_acknowledged(conn, later)).converted == ()


@timescale_only
async def test_late_rows_reach_a_converted_chunk_and_its_readers(gatherer_db: Target) -> None:
    """A batch for a chunk of columns is committed, read by the deduplicator's page with its hash, and converted later."""
    async with writing(gatherer_db) as (pool, lane), pool.acquire() as conn:
        first = [delta(n, exchange_ts=NOW + n) for n in range(1, 2_000)]
        await lane.write(seal({"orderbook_deltas": first}))
        await _acknowledge(conn, lane.lane, 1)
        later = NOW + DAY
        assert len((await convert_acknowledged(conn, later)).converted) == 1
        late = [delta(n, exchange_ts=NOW + 5) for n in range(5_000, 5_010)]
        await lane.write(seal({"orderbook_deltas": late}))
        assert lane.lane is not None
        page = await read_page(conn, {}, 100_000)
        assert sorted(row.seq for batch in page.batches for row in batch.rows["orderbook_deltas"]) == [
            row.seq for row in [*first, *late]
        ]  # fmt: skip
        assert (await convert_acknowledged(conn, later)).converted == ()
        await _acknowledge(conn, lane.lane, 2)
        assert len((await convert_acknowledged(conn, later)).converted) == 1
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == len(first) + len(
            late
        )
        assert (await convert_acknowledged(conn, later)).converted == ()


@timescale_only
async def test_a_converted_chunk_goes_when_it_is_released(gatherer_db: Target) -> None:
    """Retention drops columns as it drops rows, and not before the release."""
    async with writing(gatherer_db) as (pool, lane), pool.acquire() as conn:
        await lane.write(seal({"orderbook_deltas": [delta(1, exchange_ts=NOW)]}))
        await _acknowledge(conn, lane.lane, 1)
        assert len((await convert_acknowledged(conn, NOW + DAY)).converted) == 1
        assert (await drop_partitions_released(conn, NOW + DAY)).dropped == ()
        await conn.execute(
            "INSERT INTO lane_releases (lane, released_batch_no, merge_no) VALUES ($1, 1, 1)",
            lane.lane,
        )
        gone = await drop_partitions_released(conn, NOW + DAY)
        assert [(p.table, p.start) for p in gone.dropped] == [("orderbook_deltas", NOW)]
        assert await conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 0
        assert await _states(conn) == []


@timescale_only
async def test_a_chunk_that_is_written_to_just_now_waits(gatherer_db: Target) -> None:
    """A writer's open transaction is not waited for: the chunk stays rows until the next turn."""
    async with (
        writing(gatherer_db) as (pool, lane),
        pool.acquire() as conn,
        connect(gatherer_db) as other,
    ):
        await lane.write(seal({"orderbook_deltas": [delta(1, exchange_ts=NOW)]}))
        await _acknowledge(conn, lane.lane, 1)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("LOCK TABLE orderbook_deltas IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(60):
            result = await convert_acknowledged(conn, NOW + DAY)
        await transaction.rollback()
        assert result.converted == () and len(result.kept) == 1
        assert len((await convert_acknowledged(conn, NOW + DAY)).converted) == 1
