"""The poller against the simulated exchange and a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.runtime.service import Runtime
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool
from services.poller.service import run
from services.poller.settings import PollerSettings, Settings
from tests.integration.poller.heard import heard
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
    async with running_zone(target, directory, **{"rest_stale_s_max": 0.0} | simulated) as zone:
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
        began = CLOCK.monotonic()
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
        assert 0.3 < said["period_s_achieved"] <= CLOCK.monotonic() - began
        assert said["unchanged"] >= 2 * said["markets"]


async def test_at_most_markets_max_a_round(gatherer_db: Target, tmp_path: Path) -> None:
    """A laptop's limit holds, and the same round asks no more."""
    async with (
        zone_with_catalogue(gatherer_db, tmp_path) as zone,
        poller(zone, markets_max=5) as runtime,
    ):
        await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] >= 1)
        assert runtime.health.document()["snapshots"]["markets"] == 5


async def test_trades_that_nobody_heard_are_fetched_from_the_tape(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Between the claims of a connection that died and of its successor every trade is stored, without a connection."""
    async with zone_with_catalogue(gatherer_db, tmp_path, rate=400.0) as zone:
        tape = zone.simulator.exchange.tape
        await zone.until(lambda: len(tape) >= 30 and tape[-1][1].at - tape[0][1].at > 4 * SECOND)
        await zone.simulator.stop_publishing()
        ended, begun = tape[0][1].at // 1_000 * 1_000 + 3 * SECOND, CLOCK.now() // 1_000 * 1_000
        async with open_pool(gatherer_db) as pool:
            lane = LaneWriter(pool, family=Family.TRADES, process="connector-a-1", instance=uuid4())
            await lane.write(seal(heard(ended - 60 * SECOND, ended)))
            await lane.write(seal(heard(begun, begun + SECOND)))
            await lane.close()
        expected = {
            trade.trade_id
            for _, trade in tape
            if ended <= trade.at < begun and not trade.instrument.ticker.startswith("KXMVE")
        }
        async with poller(zone) as runtime:
            await zone.until(
                lambda: runtime.health.document()["repair"]["remembered"] == {"healed": 1}
            )
            said = runtime.health.document()["repair"]
        stored = await zone.conn.fetch("select * from trades")
        assert {row["trade_id"] for row in stored} == expected
        assert len(stored) == len(expected) == said["trades"] > 0
        assert all(row["connection"] is None and row["seq"] is None for row in stored)
        assert said["repaired"] == 1
        async with poller(zone) as again:
            await zone.until(lambda: again.health.document()["snapshots"]["rounds"] >= 1)
            assert again.health.document()["repair"]["repaired"] == 0


async def test_a_budget_too_small_makes_rounds_longer_and_says_so(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Three reads a second for requests that want six: the achieved period is longer and reported, nothing piles up."""
    async with zone_with_catalogue(gatherer_db, tmp_path, markets=250) as zone:
        zone.settings = replace(
            zone.settings, exchange=replace(zone.settings.exchange, reads_per_s=3.0)
        )
        began = CLOCK.monotonic()
        async with poller(zone, repair_s=60.0) as runtime:
            await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] >= 4)
            said = runtime.health.document()["snapshots"]
            exposed = runtime.metrics.exposition("text/plain")[0].decode()
        assert said["period_s_wanted"] == 0.5
        assert said["period_s_attainable"] == 1.0
        assert 0.8 < said["period_s_achieved"] <= CLOCK.monotonic() - began
        assert said["taken"] <= said["rounds"] * said["markets"] + said["markets"]
        (line,) = [x for x in exposed.splitlines() if x.startswith("kalshi_data_snapshot_period_s")]
        assert float(line.split()[-1]) == said["period_s_achieved"]


async def test_refusals_slow_the_poller_down(gatherer_db: Target, tmp_path: Path) -> None:
    """Answers 429 are counted and lower the rate below what the account allows; no round is given up for them."""
    async with zone_with_catalogue(gatherer_db, tmp_path) as zone, poller(zone) as runtime:
        trouble = zone.simulator.simulation.rest_trouble
        number = trouble.begin("rest", {"status": 429, "share": 1.0, "path": "/markets/orderbooks"})
        await zone.until(lambda: runtime.health.document()["exchange"]["slowed"] >= 1)
        said = runtime.health.document()["exchange"]
        assert said["limited"] >= 1
        assert said["reads_per_s"] < said["reads_per_s_allowed"]
        trouble.end(number)
        rounds = runtime.health.document()["snapshots"]["rounds"]
        await zone.until(lambda: runtime.health.document()["snapshots"]["rounds"] > rounds)
        assert runtime.health.document()["snapshots"]["failed"] == 0
        exposed = runtime.metrics.exposition("text/plain")[0].decode()
        assert 'endpoint="/markets/orderbooks",status="429"' in exposed


async def test_the_exchange_away_fails_rounds_not_the_poller(
    gatherer_db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With REST away nothing is stored, nothing ends, and a stop is heeded at once, however long the pause is."""
    monkeypatch.setattr("libs.runtime.repeat.FAULT_WAIT_S_MIN", 600.0)
    monkeypatch.setattr("libs.runtime.repeat.EXCHANGE_WAIT_S_MAX", 600.0)
    async with zone_with_catalogue(gatherer_db, tmp_path) as zone:
        away = replace(zone.settings.exchange, rest_url="http://127.0.0.1:1/trade-api/v2")
        zone.settings = replace(zone.settings, exchange=away)
        began = CLOCK.monotonic()
        try:
            async with asyncio.timeout(1.5), poller(zone):
                raise AssertionError("ready without an exchange")
        except TimeoutError:
            assert CLOCK.monotonic() - began < 60.0
