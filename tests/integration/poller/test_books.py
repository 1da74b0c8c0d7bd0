"""Books that a real connector's streams rebuild, held against the exchange's answers; and streams that lost something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from libs.marketdata.rebuild import Levels
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime, orderly
from libs.store.batch_search import first_batch_since
from libs.store.pool import Target, open_pool
from libs.telemetry.metrics import Metrics
from services.poller import tasks
from services.poller.evidence import Evidence, read_evidence
from services.poller.service import run
from services.poller.settings import PollerSettings, Settings
from services.poller.streams import Look, Patience
from tests.integration.connector.world import Zone, running_zone

QUICK = PollerSettings(
    period_s=0.5, read_share=1.0, lease_s=3.0, repair_s=5.0, check_stale_s=0.5, check_skew_s=0.2, check_delay_s=1.5,
)  # fmt: skip
"""The simulated cache is younger than what the poller allows for."""
FEW: dict[str, Any] = {"rest_stale_s_max": 0.2, "markets": 5, "quiet_ms": 300}
AT_ONCE: dict[str, Any] = {"wait_ready": False, "grace_s": 0.1}
"""A connector of which rows are waited for, and to which nobody succeeds."""


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are looked at as soon as their time has come."""
    monkeypatch.setattr(tasks, "CHECK_S", 0.3)


@asynccontextmanager
async def poller(zone: Zone, **changes: Any) -> AsyncIterator[Runtime]:
    """Run the poller beside the zone's connectors."""
    settings = Settings(
        zone="a",
        exchange=replace(zone.settings.exchange, reads_per_s=500.0),
        store=zone.settings.store,
        poller=replace(QUICK, **changes),
    )
    clock: Clock = SystemClock()
    metrics = Metrics("a")
    runtime = Runtime(clock, asyncio.Event(), HealthState("poller", "a", clock, metrics), metrics)
    task = asyncio.ensure_future(orderly(run(settings, runtime), runtime.stop))
    try:
        await zone.until(lambda: runtime.health.ready or task.done())
        yield runtime
    finally:
        runtime.stop.set()
        async with asyncio.timeout(60):
            await task


async def _checks(zone: Zone) -> dict[str, list[asyncpg.Record]]:
    found: dict[str, list[asyncpg.Record]] = {"agree": [], "disagree": [], "unknown": []}
    for row in await zone.conn.fetch("select * from book_checks order by checked_at"):
        found[row["outcome"]].append(row)
    return found


async def test_streams_agree_with_the_exchange_until_one_loses_a_delta(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Under load every market agrees, from books of the socket and from earlier answers; a lost delta is found."""
    async with (
        running_zone(gatherer_db, tmp_path, **FEW) as zone,
        zone.connector(**AT_ONCE),
        poller(zone) as runtime,
    ):
        markets = len(zone.simulator.exchange.listings)

        async def agreed(base: str) -> bool:
            rows = (await _checks(zone))["agree"]
            return len({row["ticker"] for row in rows if row["base"] == base}) == markets

        await zone.until(lambda: agreed("ws"))
        checks = await _checks(zone)
        assert checks["disagree"] == []
        assert {row["reason"] for row in checks["unknown"]} <= {"no_base", "not_heard"}
        assert sum(row["deltas"] for row in checks["agree"]) > markets
        assert all(row["connection"] and row["sid"] for row in checks["agree"])
        # Without books of the socket the answer of the round before is the base.
        await zone.conn.execute("delete from orderbook_snapshots where source = 'ws'")
        await zone.until(lambda: agreed("rest"))
        assert (await _checks(zone))["disagree"] == []
        await zone.until(lambda: runtime.health.document()["books"]["agree"] >= 2 * markets)
        assert runtime.health.document()["books"]["disagree"] == 0


async def test_a_lost_delta_is_found(gatherer_db: Target, tmp_path: Path) -> None:
    """A stored delta less: the market's row names the level with both sizes, the others agree."""
    async with running_zone(gatherer_db, tmp_path, **FEW) as zone, zone.connector(**AT_ONCE):
        await zone.until(lambda: zone.has_rows(orderbook_deltas=200))
        ticker = await zone.conn.fetchval(
            "delete from orderbook_deltas where ctid = (select ctid from orderbook_deltas order by exchange_ts desc,"
            " seq desc limit 1) returning ticker"
        )
        async with poller(zone) as runtime:
            await zone.until(lambda: runtime.health.document()["books"]["disagree"] >= 1)
            await zone.until(lambda: runtime.health.document()["books"]["agree"] >= 1)
        checks = await _checks(zone)
        assert {row["ticker"] for row in checks["disagree"]} == {ticker}
        (row, *_) = checks["disagree"]
        assert row["reason"] in {"levels", "impossible"}
        assert row["base"] == "ws"
        assert ": rest " in row["detail"]
        assert row["received_at"] >= row["requested_at"] > row["base_at"]
        assert (
            b'book_checks_total{outcome="disagree",zone="a"}'
            in (runtime.metrics.exposition("text/plain")[0])
        )


async def test_reading_is_bounded(gatherer_db: Target, tmp_path: Path) -> None:
    """No more deltas of a market than asked for come back, ascending by seq, and rows are found by their batch."""
    async with running_zone(gatherer_db, tmp_path, **FEW) as zone, zone.connector(**AT_ONCE):
        await zone.until(lambda: zone.has_rows(orderbook_deltas=200))
        tickers = sorted(zone.simulator.exchange.listings)
        clock = SystemClock()
        nothing: Levels = {}
        looks = [Look(t, clock.now(), clock.now(), nothing) for t in tickers]
        patience = Patience(0, SECOND // 10)

        async def read(per_market: int) -> Evidence:
            async with open_pool(gatherer_db) as pool, pool.acquire() as conn:
                return await read_evidence(
                    conn, [(look, None) for look in looks], patience, 60 * SECOND, per_market
                )

        async def is_heard() -> bool:
            return len((await read(5)).chosen) == len(tickers)

        await zone.until(is_heard)
        few, many = await read(5), await read(100_000)
        assert max(len(deltas) for deltas in few.deltas.values()) == 5
        for ticker, deltas in many.deltas.items():
            assert [d.seq for d in deltas] == sorted({d.seq for d in deltas})
            known = few.deltas.get(ticker, [])
            assert known == deltas[: len(known)]
        assert many.cut_from is None
        async with open_pool(gatherer_db) as pool, pool.acquire() as conn:
            assert await first_batch_since(conn, 0) <= 1
            # The connector goes on writing: one moment for both.
            async with conn.transaction(isolation="repeatable_read"):
                last = await conn.fetchval("select max(batch_id) from ingest_batches")
                assert await first_batch_since(conn, clock.now() + 3_600 * SECOND) == last + 1
            await conn.execute("update ingest_batches set committed_at = committed_at - interval '1 hour' where batch_id <= 7")  # fmt: skip
            assert await first_batch_since(conn, clock.now() - 600 * SECOND) == 8
