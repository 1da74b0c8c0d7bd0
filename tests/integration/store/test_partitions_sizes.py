"""Rows and bytes per table without counting, on partitions and on chunks (KALSHI_TEST_TIMESCALE=1)."""

from dataclasses import replace

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import DAY, HOUR
from libs.store import table_sizes as room
from libs.store.columnstore import convert_acknowledged
from libs.store.partitions import Horizon, ensure_partitions
from libs.store.pool import AnyConnection, Target, connect
from libs.store.table_sizes import Leaf, read_table_sizes
from tests.support.postgres import with_timescale

NOW = 1_900_000_800_000_000
MANY = 60_000


async def _fill(conn: AnyConnection) -> None:
    """Many deltas over two hours, a few statuses, one market."""
    await ensure_partitions(conn, "gatherer", NOW, Horizon(behind=0, ahead=2 * HOUR))
    await conn.execute(
        "INSERT INTO orderbook_deltas SELECT 1, $1::bigint + i::bigint * 100000, $1, 100, i, 50000, 1, 1, true,"
        " '00000000-0000-0000-0000-000000000001', 'M' || (i % 7), NULL, NULL FROM generate_series(1, $2::int) i",
        NOW, MANY,
    )  # fmt: skip
    await conn.execute(
        "INSERT INTO exchange_status SELECT 1, $1::bigint + i, 1, 1, 's', '', NULL, NULL FROM generate_series(1, 5) i",
        NOW,
    )  # fmt: skip
    await conn.execute("INSERT INTO series VALUES ('S', '{}', 1, 1)")


async def test_every_table_is_there_and_small_ones_are_exact(gatherer_db: Target) -> None:
    """Facts, ledger and catalogue; by the user who may only look; empty tables are empty, not unknown."""
    async with connect(gatherer_db) as conn:
        await _fill(conn)
    async with connect(replace(gatherer_db, user="kd_status")) as conn:
        sizes = await read_table_sizes(conn)
    assert {*GATHERER_TABLES, "ingest_batches", "markets", "trade_repairs"} <= sizes.keys()
    assert (sizes["exchange_status"].rows, sizes["exchange_status"].is_exact) == (5, True)
    assert (sizes["series"].rows, sizes["series"].is_exact) == (1, True)
    assert (sizes["trades"].rows, sizes["trades"].is_exact) == (0, True)
    assert sizes["exchange_status"].bytes > 0


async def test_large_tables_are_estimated_with_and_without_statistics(gatherer_db: Target) -> None:
    """Before and after the server has looked at the table, and after it has grown since: near the truth."""
    async with connect(gatherer_db) as conn:
        await _fill(conn)
        query = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'orderbook_deltas'::regclass"  # fmt: skip
        for statement in ("SELECT 1", "ANALYZE", "INSERT INTO orderbook_deltas SELECT * FROM orderbook_deltas"):  # fmt: skip
            await conn.execute(statement)
            truth = await conn.fetchval("SELECT count(*) FROM orderbook_deltas")
            size = (await read_table_sizes(conn))["orderbook_deltas"]
            assert not size.is_exact
            assert abs(size.rows - truth) < 0.03 * truth
            assert abs(size.bytes - await conn.fetchval(query)) < 100_000


async def test_production_is_read_the_same(production_db: Target) -> None:
    """Tables that are partitioned there and those that are not."""
    async with connect(production_db) as conn:
        await conn.execute(
            "INSERT INTO merges (merge_no, rows_read, rows_inserted) VALUES (1, 2, 3)"
        )
        sizes = await read_table_sizes(conn)
    assert (sizes["merges"].rows, sizes["merges"].is_exact) == (1, True)
    assert sizes["orderbook_deltas"].rows == 0


async def test_chunks_of_columns_count_as_their_table(gatherer_db: Target) -> None:
    """Converted rows are still rows, in fewer bytes; late ones in the same chunk are counted besides."""
    if not with_timescale():
        return
    async with connect(gatherer_db) as conn:
        await _fill(conn)
        before = (await read_table_sizes(conn))["orderbook_deltas"]
        assert len((await convert_acknowledged(conn, NOW + 9 * DAY)).converted) >= 2
        await conn.execute(
            "INSERT INTO orderbook_deltas VALUES (1, $1, $1, 1, 1, 1, 1, 1, true, gen_random_uuid(), 'M', NULL, NULL)",
            NOW + 5,
        )
        after = (await read_table_sizes(conn))["orderbook_deltas"]
        assert after.rows == MANY + 1
        assert 0 < after.bytes < before.bytes / 3
    async with connect(replace(gatherer_db, user="kd_status")) as conn:
        assert (await read_table_sizes(conn))["orderbook_deltas"].rows == after.rows


def test_an_estimate_follows_the_pages() -> None:
    """Statistics of an earlier size are scaled; without any the first pages speak; a small table is what it holds."""
    leaf = Leaf("t", 1, "t", None, pages=3_200, known_pages=320, known_rows=6_400.0, bytes=1)
    assert (leaf.is_sampled, leaf.rows(None)) == (False, 64_000)
    assert leaf._replace(known_rows=-1.0).rows(640) == 64_000
    assert leaf._replace(pages=room.SAMPLED_PAGES, known_rows=-1.0).rows(77) == 77
    assert leaf._replace(pages=0, known_pages=0, known_rows=-1.0).rows(None) == 0
