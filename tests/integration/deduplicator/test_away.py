"""Production or a zone goes away while rows come in, and comes back: nothing is lost, nobody else waits."""

from dataclasses import replace

from libs.store.pool import Connection, Target, connect
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    hear,
    make_truth,
    merged_keys,
    running,
    true_keys,
)


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
