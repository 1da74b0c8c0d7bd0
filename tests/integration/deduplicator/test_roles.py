"""The deduplicator does its work with the roles it is given, and no more."""

from dataclasses import replace

from libs.store.pool import connect
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import hear, make_truth, merged_keys, running, true_keys


async def test_reader_and_writer_roles_suffice(databases: Databases) -> None:
    """kd_reader at the gatherers, kd_writer in production: merged, acknowledged, released, partitions made."""
    truth = make_truth(31, 200)
    for zone in databases.zones.values():
        await zone.write(hear(truth))
    gatherers = {name: replace(db, user="kd_reader") for name, db in databases.gatherers.items()}
    production = replace(databases.production, user="kd_writer")
    async with (
        running(gatherers, production, cursor_copy_s=0.05, release_after_s=0.1) as deduplicator,
        connect(databases.gatherers["a"]) as conn,
    ):
        await deduplicator.drained()
        for _ in range(100):
            if await conn.fetchval("SELECT count(*) FROM lane_releases"):
                break
            await deduplicator.drained()
            await conn.execute("SELECT pg_sleep(0.05)")
        assert await conn.fetchval("SELECT count(*) FROM lane_releases") == 1
        assert await conn.fetchval("SELECT count(*) FROM lane_acknowledgements") == 1
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    waiting = await databases.conn.fetchval("SELECT count(*) FROM orderbook_deltas_default")
    assert waiting == 0
