"""The scribe over real lanes: waiting, lost lanes, sharing."""

import asyncio
from uuid import uuid4

import pytest

from libs.marketdata.rows import ExchangeStatusRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store.batches import Rows
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.pool import Pool, Target, open_pool
from libs.store.scribe import Scribe
from libs.telemetry.metrics import Metrics
from services.local.postgres import EmbeddedPostgres

CLOCK = SystemClock()


def status(at: int) -> Rows:
    """One row."""
    return {"exchange_status": [ExchangeStatusRow(at, at, 0, "status", "{}", True, True)]}


def scribe_on(pool: Pool, stop: asyncio.Event, lost: list[str]) -> Scribe:
    """A scribe that notes why lanes were left."""

    def on_lost(error: LaneLost) -> None:
        lost.append(error.reason)

    lane = LaneWriter(pool, family=Family.REST, process="registry", instance=uuid4())
    return Scribe(lane, "rest", now=CLOCK.now, stop=stop, metrics=Metrics("a"), on_lost=on_lost)


async def test_tasks_share_one_lane_in_order(gatherer_db: Target) -> None:
    """Writes of several tasks are whole batches, numbered without a hole; closing tells the last number."""
    async with open_pool(gatherer_db) as pool:
        scribe = scribe_on(pool, asyncio.Event(), [])
        done = await asyncio.gather(*(scribe.write(status(n)) for n in range(8)))
        assert sorted(committed.batch_no for committed in done) == list(range(1, 9))
        await scribe.close()
        lane = await pool.fetchrow("select * from lanes")
        assert lane is not None
        assert (lane["last_batch_no"], lane["closed_at"] is None) == (8, False)


async def test_a_database_that_forgot_the_lane_leaves_a_cause(gatherer_db: Target) -> None:
    """Restored from an older copy: a new lane whose first batch holds the rows and a database_went_back row."""
    lost: list[str] = []
    async with open_pool(gatherer_db) as pool:
        scribe = scribe_on(pool, asyncio.Event(), lost)
        first = await scribe.write(status(1))
        await pool.execute("delete from ingest_batches")
        await pool.execute("delete from lanes")
        await pool.execute("truncate exchange_status")
        second = await scribe.write(status(2))
        assert second.lane != first.lane
        assert second.batch_no == 1
        assert lost == ["unknown_lane"] or lost == ["database_went_back"]
        gaps = await pool.fetch("select reason, channel, batch_id from gaps")
        assert [tuple(row) for row in gaps] == [
            ("database_went_back", "market_lifecycle_v2", second.batch_id)
        ]
        assert await pool.fetchval("select array_agg(received_at) from exchange_status") == [2]
        await scribe.close()


async def test_a_lane_closed_by_others_is_left_without_a_gap(gatherer_db: Target) -> None:
    """A successor thought us dead: nothing was lost, so the rows simply stand on a new lane."""
    lost: list[str] = []
    async with open_pool(gatherer_db) as pool:
        scribe = scribe_on(pool, asyncio.Event(), lost)
        await scribe.write(status(1))
        await pool.execute("update lanes set closed_at = clock_timestamp(), last_batch_no = 1")
        await scribe.write(status(2))
        assert lost == ["closed"]
        assert await pool.fetchval("select count(*) from gaps") == 0
        assert await pool.fetchval("select count(*) from exchange_status") == 2
        await scribe.close()


async def test_after_stop_a_database_that_is_away_is_given_up(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows in hand are not committed, and the caller is told so instead of waiting for ever."""
    monkeypatch.setattr("libs.store.steady.STOP_S_MAX", 0.1)
    stop = asyncio.Event()
    async with open_pool(gatherer_db) as pool:
        scribe = scribe_on(pool, stop, [])
        await scribe.write(status(1))
        stop.set()
        pool.terminate()
        with pytest.raises(StoreUnavailable):
            await scribe.write(status(2))


async def test_a_restart_of_the_server_is_waited_for(
    postgres_server: EmbeddedPostgres, gatherer_db: Target
) -> None:
    """Connections that die under the scribe cost nothing: the same rows are committed once."""
    async with open_pool(gatherer_db) as pool:
        scribe = scribe_on(pool, asyncio.Event(), [])
        await scribe.write(status(1))
        async with asyncio.timeout(60):
            async with open_pool(gatherer_db) as other:
                await other.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
                other.terminate()
            await scribe.write(status(2))
        assert await pool.fetchval(
            "select array_agg(received_at order by 1) from exchange_status"
        ) == [1, 2]
        assert postgres_server.alive
        await scribe.close()
