"""Production or a zone goes away while rows come in, and comes back: nothing is lost, nobody else waits."""

from dataclasses import replace

import pytest

from libs.marketdata.tables import Family
from libs.marketdata.units import DAY, HOUR
from libs.store.pool import Connection, Target, connect
from services.deduplicator import partitions
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    hear,
    make_truth,
    merged_keys,
    running,
    ticker,
    trade,
    true_keys,
)
from tests.support.postgres import plain_only


async def shut(conn: Connection, target: Target) -> None:
    """Let no service into this database any more, and put out those that are in it."""
    await conn.execute(f"ALTER DATABASE {target.database} CONNECTION LIMIT 0")
    await conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = $1 AND usename IN ('kd_reader', 'kd_writer')",
        target.database,
    )


async def open_again(conn: Connection, target: Target) -> None:
    """Let services in."""
    await conn.execute(f"ALTER DATABASE {target.database} CONNECTION LIMIT -1")


async def test_production_and_a_zone_go_away_and_come_back(databases: Databases) -> None:
    """The writer waits for production and says so; a zone that is away is merged when it is back."""
    truth = make_truth(41, 900)
    rows, zone_a = hear(truth), databases.gatherers["a"]
    gatherers = {name: replace(db, user="kd_reader") for name, db in databases.gatherers.items()}
    production = replace(databases.production, user="kd_writer")
    async with (
        running(gatherers, production) as deduplicator,
        connect(replace(zone_a, database="postgres")) as server,
    ):
        await databases.zones["a"].write(rows[:200])
        await deduplicator.drained()
        await shut(server, production)
        await deduplicator.until(lambda h: str(h["reason"]).startswith("waiting for production"))
        await databases.zones["b"].write(rows[:400])
        await open_again(server, production)
        await deduplicator.drained()
        await shut(server, zone_a)
        await deduplicator.until(lambda h: h["gatherers"]["a"]["status"] == "away")
        await databases.zones["a"].write(rows[200:600])
        await databases.zones["c"].write(rows[500:])
        await deduplicator.drained("b", "c")
        assert len(await merged_keys(databases.conn)) == 800
        await open_again(server, zone_a)
        await deduplicator.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


@plain_only
async def test_what_waited_for_days_goes_into_partitions_of_its_own_time(
    databases: Databases,
) -> None:
    """Production was away: every hour of the backlog has its partition, and a row far from its receipt makes none."""
    long_ago = CLOCK.now() - 5 * DAY
    tickers = [ticker(number, long_ago + number * HOUR) for number in range(30)]
    far = ticker(99, long_ago - 9 * DAY)._replace(received_at=CLOCK.now())
    await databases.zones["a"].write_other("tickers", [*tickers, far], Family.TRADES)
    await databases.zones["b"].write_other("trades", [trade(1, long_ago - DAY)], Family.TRADES)
    production = replace(databases.production, user="kd_writer")
    async with running(databases.gatherers, production) as deduplicator:
        await deduplicator.drained()
    conn = databases.conn
    assert await conn.fetchval("SELECT count(*) FROM tickers") == 31
    waiting = await conn.fetch("SELECT content_hash FROM tickers_default")
    assert [row[0] for row in waiting] == [99]
    assert await conn.fetchval("SELECT count(*) FROM trades") == 1
    assert await conn.fetchval("SELECT count(*) FROM trades_default") == 0


@plain_only
async def test_rows_that_found_no_partition_in_time_move_into_it_later(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is busy just then: the rows wait in the default partition, nothing stops."""
    monkeypatch.setattr(partitions, "AGAIN_S", 0.5)
    long_ago = CLOCK.now() - 5 * DAY
    await databases.zones["a"].write_other("tickers", [ticker(1, long_ago)], Family.TRADES)
    conn, waiting = databases.conn, "SELECT count(*) FROM tickers_default"
    async with running(databases.gatherers, databases.production) as deduplicator:
        async with conn.transaction():
            await conn.execute("LOCK TABLE ONLY tickers IN SHARE UPDATE EXCLUSIVE MODE")
            await deduplicator.drained()
            assert await conn.fetchval(waiting) == 1
        for _ in range(400):
            if not await conn.fetchval(waiting):
                break
            await conn.execute("SELECT pg_sleep(0.05)")
        assert await conn.fetchval(waiting) == 0
        assert await conn.fetchval("SELECT count(*) FROM tickers") == 1
