"""The deduplicator does its work with the roles it is given, and no more."""

import asyncio
from dataclasses import replace

import pytest

from libs.store.partitions import count_default_rows
from libs.store.pool import AnyConnection, connect
from libs.store.summaries import Summaries
from services.deduplicator import housekeeping
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
        for _ in range(1200):
            if await conn.fetchval("SELECT count(*) FROM lane_releases"):
                break
            await deduplicator.drained()
            await conn.execute("SELECT pg_sleep(0.05)")
        assert await conn.fetchval("SELECT count(*) FROM lane_releases") == 1
        assert await conn.fetchval("SELECT count(*) FROM lane_acknowledgements") == 1
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    waiting = await count_default_rows(databases.conn, "production")
    assert waiting.get("orderbook_deltas", 0) == 0


FILL = (
    "INSERT INTO orderbook_deltas SELECT (extract(epoch FROM now()) * 1000000)::bigint, 1, 1, g, 1, 1, 1, true,"
    " gen_random_uuid(), 'T' || g, NULL, NULL, 1, 1 FROM generate_series(1, 20000) g"
)


async def test_new_rows_of_production_are_summarised_by_its_writer(databases: Databases) -> None:
    """kd_writer keeps up the indexes by merge_no: what grew is summarised once."""
    await databases.conn.execute(FILL)
    async with connect(replace(databases.production, user="kd_writer")) as writer:
        summaries = Summaries("merge_no")
        # The server's own worker may have come to some of the ranges before us.
        assert await summaries.keep_up(writer) > 0
        assert await summaries.keep_up(writer) == 0
    # Whoever did it: one who knows of nothing finds no range that is left.
    assert await Summaries("merge_no").keep_up(databases.conn) == 0


async def test_a_running_deduplicator_keeps_the_summaries_up(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some turns after being ready, without autovacuum: nobody else finds anything to do."""
    keep_up, turns = Summaries.keep_up, asyncio.Semaphore(0)

    async def counted(summaries: Summaries, conn: AnyConnection) -> int:
        done = await keep_up(summaries, conn)
        turns.release()
        return done

    monkeypatch.setattr(Summaries, "keep_up", counted)
    monkeypatch.setattr(housekeeping, "SUMMARIES_S", 0.05)
    await databases.conn.execute(FILL)
    missing = (
        "SELECT sum(brin_summarize_new_values(i.indexrelid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE c.relname LIKE 'orderbook_deltas%merge_no%' AND c.relkind = 'i'"
    )
    production = replace(databases.production, user="kd_writer")
    async with running(databases.gatherers, production) as deduplicator:
        await deduplicator.drained()
        async with asyncio.timeout(60):
            for _ in range(3):
                await turns.acquire()
    assert await databases.conn.fetchval(missing) == 0
