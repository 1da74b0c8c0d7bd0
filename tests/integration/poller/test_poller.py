"""The poller against the simulated exchange and a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from libs.marketdata.rows import GapRow, gap
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.runtime.service import Runtime
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool
from services.poller.service import run
from services.poller.settings import PollerSettings, Settings
from tests.integration.registry.world import Zone, running_zone

CLOCK = SystemClock()
SECOND = 1_000_000
QUICK = PollerSettings(
    period_s=0.5, read_share=1.0, lease_s=3.0, repair_s=0.1, repair_delay_s=0.2, concurrency=3
)


@asynccontextmanager
async def poller(zone: Zone, **changes: Any) -> AsyncIterator[Runtime]:
    """Run the poller over the zone's catalogue."""
    common = zone.settings
    settings = Settings(
        zone="a",
        exchange=common.exchange,
        store=common.store,
        capture=common.capture,
        poller=replace(QUICK, **changes),
    )
    async with zone.service("poller", run, settings) as runtime:
        yield runtime


@asynccontextmanager
async def zone_with_catalogue(
    target: Target, directory: Path, **simulated: Any
) -> AsyncIterator[Zone]:
    """A zone whose registry has listed the exchange and is gone."""
    async with running_zone(target, directory, **simulated) as zone:
        async with zone.registry():
            pass
        yield zone


def ladder(levels: Any) -> list[list[int]]:
    """A ladder as asyncpg returns it."""
    return [list(level) for level in levels or ()]


async def test_snapshots_equal_the_exchanges_books(gatherer_db: Target, tmp_path: Path) -> None:
    """Every open market has a row of source rest with both times, and its ladders are the exchange's, level by level."""
    async with zone_with_catalogue(gatherer_db, tmp_path) as zone:
        await zone.simulator.stop_publishing()
        async with poller(zone) as runtime:
            await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] >= 1)
        rows = await zone.conn.fetch("select * from orderbook_snapshots where yes is not null")
        truth = {str(book["ticker"]): book for book in zone.simulator.books()}
        wanted = {
            r[0]
            for r in await zone.conn.fetch(
                "select ticker from markets where wanted and status = 'active'"
            )
        }
        assert {row["ticker"] for row in rows} == wanted
        for row in rows:
            book = truth[row["ticker"]]
            assert (row["yes"], row["no"]) == (ladder(book["yes"]), ladder(book["no"]))
            assert row["source"] == "rest"
            assert row["requested_at"] <= row["received_at"] == row["observed_at"]
            assert not row["observed_is_sent"]
            assert row["connection"] is None


async def test_unchanged_books_are_rows_without_ladders(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """With the market at rest the second round writes rows with the same hash and NULL ladders."""
    async with zone_with_catalogue(gatherer_db, tmp_path) as zone:
        await zone.simulator.stop_publishing()
        async with poller(zone) as runtime:
            await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] >= 3)
            said = runtime.health.document()["snapshots"]
        rows = await zone.conn.fetch(
            "select ticker, count(*) as rows, count(yes) as yes, count(no) as no,"
            " count(distinct content_hash) as hashes from orderbook_snapshots group by ticker"
        )
        assert rows
        assert all(
            (r["rows"] >= 3, r["yes"], r["no"], r["hashes"]) == (True, 1, 1, 1) for r in rows
        )
        assert 0.3 < said["period_s_achieved"] < 3.0
        assert said["unchanged"] >= 2 * said["markets"]


async def test_at_most_markets_max_a_round(gatherer_db: Target, tmp_path: Path) -> None:
    """A laptop's limit holds, and the same round asks no more."""
    async with (
        zone_with_catalogue(gatherer_db, tmp_path) as zone,
        poller(zone, markets_max=5) as runtime,
    ):
        await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] >= 1)
        assert runtime.health.document()["snapshots"]["markets"] == 5


def trade_gap(from_ts: int, to_ts: int) -> GapRow:
    """A gap of the trade channel as a connector writes it."""
    return gap(
        CLOCK.now(), "trade", "disconnected", slot="trade/0", detail="test", from_ts=from_ts, to_ts=to_ts,
        received_from=from_ts, received_to=to_ts,
    )  # fmt: skip


async def test_trades_of_a_gap_are_fetched_from_the_tape(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """After a gap row of the trade channel every trade of the span is stored, without a connection; once."""
    async with zone_with_catalogue(gatherer_db, tmp_path, rate=400.0) as zone:
        began = CLOCK.now()
        await zone.until(lambda: len(zone.simulator.exchange.tape) >= 30)
        await zone.simulator.stop_publishing()
        tape = [trade for _, trade in zone.simulator.exchange.tape if trade.at >= began]
        async with open_pool(gatherer_db) as pool:
            lane = LaneWriter(pool, family=Family.REST, process="connector-a-1", instance=uuid4())
            await lane.write(seal({"gaps": [trade_gap(began, CLOCK.now())]}))
            await lane.close()
        async with poller(zone) as runtime:
            await zone.until(lambda: runtime.health.document()["repair"]["repaired"] == 1)
        stored = await zone.conn.fetch("select * from trades")
        combos = {trade.trade_id for trade in tape if trade.instrument.ticker.startswith("KXMVE")}
        expected = {trade.trade_id for trade in tape} - combos
        assert expected <= {row["trade_id"] for row in stored}
        assert len(stored) == len({row["trade_id"] for row in stored})
        assert all(row["connection"] is None and row["seq"] is None for row in stored)
        async with poller(zone) as again:
            await zone.until(lambda: again.health.document()["snapshots"]["rounds"] >= 1)
            assert again.health.document()["repair"]["repaired"] == 0


async def test_the_exchange_away_fails_rounds_not_the_poller(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """With REST away nothing is stored, nothing ends, and a stop is heeded at once."""
    async with zone_with_catalogue(gatherer_db, tmp_path) as zone:
        away = replace(zone.settings.exchange, rest_url="http://127.0.0.1:1/trade-api/v2")
        zone.settings = replace(zone.settings, exchange=away)
        began = CLOCK.monotonic()
        try:
            async with asyncio.timeout(1.5), poller(zone):
                raise AssertionError("ready without an exchange")
        except TimeoutError:
            assert CLOCK.monotonic() - began < 6.0
