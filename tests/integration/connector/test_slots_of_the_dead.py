"""What a successor writes about the sids of a process that died."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from libs.marketdata.rows import DeltaRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.errors import StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, connect, open_pool
from libs.store.scribe import Scribe
from libs.telemetry.metrics import Metrics
from services.connector.successor import succeed
from services.registry.deaths import Deaths
from tests.integration.connector.world import running_zone

ONE, TWO, THREE, FOUR = (UUID(int=n) for n in range(1, 5))


def heard(connection: UUID, sid: int, channel: str) -> ListenRangeRow:
    return ListenRangeRow(10, 1, 5, 1, 9, 0, sid, 1, connection, channel)


async def _write(target: Target, rows: dict[str, Sequence[tuple[object, ...]]]) -> None:
    async with open_pool(target) as pool:
        lane = LaneWriter(pool, family=Family.DELTAS, process="shard", instance=uuid4())
        await lane.write(seal(rows))
        await lane.close()
    async with connect(target) as conn:
        await conn.execute("update lanes set closed_at = null, last_batch_no = null")


async def test_gaps_of_a_dead_process_name_their_slots(gatherer_db: Target) -> None:
    """Known by an opening, by a market, or because the shard has one slot of the kind; else left empty."""
    opened = ListenOpenedRow(10, 1, 1, 0, 1, 1, 1, ONE, "orderbook_delta", "orderbook/7", "A")
    delta = DeltaRow(1, 10, 100, 3, 100, 1, 1, True, TWO, "B", 2, None)
    ranges = [
        heard(ONE, 1, "orderbook_delta"),
        heard(TWO, 1, "orderbook_delta"),
        heard(THREE, 1, "trade"),
        heard(FOUR, 1, "ticker"),
    ]
    async with connect(gatherer_db) as conn:
        await conn.execute(
            "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
            " content_hash, body) values ('B', 'B', 'B', 'active', false, true, 'orderbook/8', 0, 0, '{}')"
        )
        await conn.execute(
            "insert into slot_assignments (slot, shard, epoch, state) select slot, 'shard', 1, 'live'"
            " from unnest('{trade/1,ticker/0,ticker/1}'::text[]) as s (slot)"
        )
        await _write(
            gatherer_db,
            {"listen_ranges": ranges, "listen_opened": [opened], "orderbook_deltas": [delta]},
        )
        gaps = await succeed(conn, "shard", uuid4(), 99)
    assert {(gap.connection, gap.reason, gap.slot) for gap in gaps} == {
        (ONE, "process_died", "orderbook/7"),
        (TWO, "process_died", "orderbook/8"),
        (THREE, "process_died", "trade/1"),
        (FOUR, "process_died", ""),
    }


async def test_a_successor_that_could_not_read_asks_again(gatherer_db: Target) -> None:
    """The lanes are closed with what is read behind it, or not at all."""
    await _write(gatherer_db, {"listen_ranges": [heard(ONE, 1, "trade")]})
    async with connect(gatherer_db) as conn, connect(gatherer_db) as other:
        await conn.execute("set statement_timeout = '200ms'")
        async with other.transaction():
            await other.execute("lock table listen_ranges in access exclusive mode")
            with pytest.raises(StoreUnavailable):
                await succeed(conn, "shard", uuid4(), 99)
        await conn.execute("reset statement_timeout")
        assert [row.connection for row in await succeed(conn, "shard", uuid4(), 99)] == [ONE]
        assert await succeed(conn, "shard", uuid4(), 99) == []


async def test_of_a_connector_that_ended_in_order_nothing_is_told(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Every sid that it heard was closed with its last rows: the registry looks at its lanes and writes nothing."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.connector():
            await zone.until(lambda: zone.has_rows(orderbook_deltas=100, trades=1, tickers=1))
        assert await zone.conn.fetchval("select count(*) from lanes where closed_at is null") == 0
        await zone.conn.execute("update lanes set closed_at = closed_at - interval '2 minutes'")
        async with open_pool(gatherer_db) as pool:
            lane = LaneWriter(pool, family=Family.REST, process="registry", instance=uuid4())
            scribe = Scribe(lane, "rest", now=lambda: 1, stop=asyncio.Event(), metrics=Metrics("a"))
            deaths = Deaths(pool, scribe, lambda: 1)
            await deaths.tell_once()
            assert deaths.told == 0
            await scribe.close()
        assert "process_died" not in {row.reason for row in await zone.rows("gaps")}
