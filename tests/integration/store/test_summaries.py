"""Summaries of new rows: every BRIN index that rows are found by is kept up, whatever kind of server."""

from libs.marketdata.units import DAY
from libs.store.partitions import Horizon, ensure_partitions
from libs.store.pool import AnyConnection, Target, connect
from libs.store.summaries import Summaries
from libs.store.trade_repairs import stored_trades

NOW = 1_900_000_800_000_000
RANGES = """
select x.relname, pg_relation_size(i.indrelid) / 8192 / 32 as ranges, i.indexrelid::bigint as index
from pg_index i join pg_class x on x.oid = i.indexrelid join pg_am m on m.oid = x.relam and m.amname = 'brin'
join pg_inherits h on h.inhrelid = i.indrelid and h.inhparent = 'trades'::regclass
where pg_relation_size(i.indrelid) > 8192 * 64
"""


async def _trades(conn: AnyConnection, count: int) -> None:
    await ensure_partitions(conn, "gatherer", NOW, Horizon(behind=0, ahead=DAY))
    await conn.execute(
        "INSERT INTO trades SELECT 1 + i / 100, $1::bigint + i * 1000, $1, 1, 1, 1, true, 'trade-' || i, 'M', NULL, NULL,"
        " NULL, NULL, NULL FROM generate_series(0, $2::bigint - 1) i",
        NOW, count,
    )  # fmt: skip


async def test_both_indexes_of_trades_are_kept_up(gatherer_db: Target) -> None:
    """After a turn nothing is left to summarise, neither by batch nor by time; the next turn finds nothing to do."""
    async with connect(gatherer_db) as conn:
        await _trades(conn, 30_000)
        summaries = Summaries()
        assert await summaries.keep_up(conn) > 0
        found = await conn.fetch(RANGES)
        assert len(found) == 2
        for row in found:
            left = await conn.fetchval("select brin_summarize_new_values($1::oid::regclass)", row["index"])  # fmt: skip
            assert left <= 1
        assert await summaries.keep_up(conn) == 0


async def test_stored_trades_are_found_by_their_time(gatherer_db: Target) -> None:
    """A page of the tape looks into the pages of its own time alone, and finds trades whose time differs a little."""
    async with connect(gatherer_db) as conn:
        await _trades(conn, 60_000)
        await Summaries().keep_up(conn)
        await conn.execute("ANALYZE trades")
        ids = [f"trade-{n}" for n in range(20_000, 20_010)]
        low, high = NOW + 20_000_000, NOW + 20_009_000
        assert await stored_trades(conn, [*ids, "unknown"], low, high, 0) == set(ids)
        assert await stored_trades(conn, ids, low + 3_000, high + 3_000, 3_000) == set(ids)
        assert await stored_trades(conn, ids, low + DAY, high + DAY, 0) == set()
        plan = await conn.fetch(
            "explain (analyze, buffers, format text) select trade_id from trades"
            " where exchange_ts between $1 and $2 and trade_id = any($3::text[])",
            low, high, ids,
        )  # fmt: skip
        text = "\n".join(row[0] for row in plan)
        assert "Bitmap Index Scan" in text
        assert "trades_exchange_ts" in text or "exchange_ts_idx" in text
