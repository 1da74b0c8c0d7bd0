"""Whatever fails, and wherever: production ends equal to what the gatherers committed."""

import asyncio
import random
from typing import Any

import pytest

from libs.marketdata.tables import Family
from libs.store.merge_errors import HistoryChanged
from libs.store.merge_transaction import Merged, MergeTransaction
from libs.store.merger import ProductionWriter
from libs.store.pool import Target, connect
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    event_kinds,
    hear,
    make_truth,
    merged_keys,
    running,
    start,
    ticker,
    true_keys,
)


async def merge_all(databases: Databases, **changes: Any) -> None:
    """Run a deduplicator until everything committed is merged."""
    async with running(databases.gatherers, databases.production, **changes) as deduplicator:
        await deduplicator.drained()


class Cutting:
    """Cuts the writer's connection: before, during or right after the COMMIT of a share of the transactions."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._merge = ProductionWriter.merge
        self.cuts = 0

    async def merge(self, writer: ProductionWriter, transaction: MergeTransaction) -> Merged:
        """Stand in for ProductionWriter.merge."""
        fate = self._rng.random()
        if fate < 0.3:
            self.cuts += 1
            loop, conn = asyncio.get_running_loop(), writer._conn
            if conn is not None:
                # As the network cuts it: the driver learns of it from its transport.
                loop.call_later(self._rng.uniform(0, 0.02), conn._transport.abort)  # type: ignore[attr-defined]
        merged = await self._merge(writer, transaction)
        if 0.3 <= fate < 0.45:
            self.cuts += 1
            await writer._disconnect()
            raise HistoryChanged("cut right after COMMIT")
        return merged


async def test_connections_cut_at_random_moments_lose_and_double_nothing(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions die before, in and after COMMIT while copies of the same facts are in flight from other zones."""
    truth, cutting = make_truth(11, 1500), Cutting(11)

    async def merge(writer: ProductionWriter, transaction: MergeTransaction) -> Merged:
        return await cutting.merge(writer, transaction)

    monkeypatch.setattr(ProductionWriter, "merge", merge)
    async with running(databases.gatherers, databases.production, page_rows=50) as deduplicator:
        for index, zone in enumerate(databases.zones.values()):
            await zone.write(hear(truth, [(index * 400, index * 400 + 100)]))
        await deduplicator.drained()
    assert cutting.cuts > 3
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_pages_read_again_double_nothing_and_coverage_still_adds_up(
    databases: Databases,
) -> None:
    """Cursors are forgotten, as after a re-admission: every row comes again and is found by its key."""
    truth = make_truth(13, 400)
    for zone in databases.zones.values():
        await zone.write(hear(truth))
    await merge_all(databases)
    await databases.conn.execute("DELETE FROM sync_cursors")
    await merge_all(databases)
    merged = await merged_keys(databases.conn)
    assert sorted(merged) == sorted(true_keys(truth))
    facts = await databases.conn.fetchval("SELECT sum(facts) FROM coverage WHERE NOT is_late")
    assert facts == len(merged)


async def test_a_second_deduplicator_waits_and_takes_over_when_the_first_dies(
    databases: Databases,
) -> None:
    """Only the lease's end lets it in; both together merge everything once."""
    truth = make_truth(14, 800)
    rows = hear(truth)
    first = start(databases.gatherers, databases.production, lease_s=600.0)
    await first.until(lambda health: health.get("epoch"))
    second = start(databases.gatherers, databases.production, lease_s=600.0)
    await databases.zones["a"].write(rows[:400])
    await first.drained()
    await second.until(lambda h: h["reason"] == "waiting for the lease of another deduplicator")
    assert second.health["epoch"] == 0
    await first.kill()
    await databases.zones["b"].write(rows)
    await databases.conn.execute(
        "UPDATE writer_lease SET expires_at = clock_timestamp() - interval '1 s'"
    )
    await second.drained()
    await second.stop()
    assert second.health["epoch"] == 2
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_a_graceful_stop_merges_what_is_there_and_gives_the_lease_up(
    databases: Databases,
) -> None:
    """Rows committed just before the stop are merged and acknowledged; the next writer need not wait."""
    truth = make_truth(15, 600)
    deduplicator = start(databases.gatherers, databases.production, lease_s=600.0)
    await deduplicator.until(lambda health: health["ready"])
    for zone in databases.zones.values():
        await zone.write(hear(truth))
    await deduplicator.stop()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    for target in databases.gatherers.values():
        async with connect(target) as conn:
            behind = await conn.fetchval(
                "SELECT count(*) FROM (SELECT lane, max(batch_no) AS last FROM ingest_batches GROUP BY lane) l"
                " LEFT JOIN lane_acknowledgements a USING (lane) WHERE a.batch_no IS DISTINCT FROM l.last"
            )
            assert behind == 0
    async with asyncio.timeout(60):
        await merge_all(databases, lease_s=600.0)


async def test_a_stop_does_not_wait_for_a_gatherer_that_goes_on_writing(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    """What was committed before it is merged within the grace; what comes later is the next one's."""
    written: list[int] = []
    is_over = asyncio.Event()

    async def go_on() -> None:
        while not is_over.is_set():
            row = ticker(len(written) + 1, CLOCK.now())
            await databases.zones["a"].write_other("tickers", [row], Family.TRADES)
            written.append(len(written) + 1)

    # No look, a twentieth of a second after the one before it, finds nothing new.
    deduplicator = start(databases.gatherers, databases.production, poll_ms=100, poll_ms_min=50)
    writing = asyncio.create_task(go_on())
    await deduplicator.until(lambda health: health["rows_inserted"])
    before = list(written)
    await deduplicator.stop()
    merged = await databases.conn.fetch("SELECT content_hash FROM tickers")
    is_over.set()
    await writing
    assert {row[0] for row in merged} >= set(before)
    assert "not_drained_in_grace" not in caplog.text
    await merge_all(databases)
    merged = await databases.conn.fetch("SELECT content_hash FROM tickers ORDER BY 1")
    assert [row[0] for row in merged] == written


async def restore_production(databases: Databases, merge_no: int, cursors: list[Any]) -> None:
    """Put production back to what it was after merge_no, in one transaction."""
    conn = databases.conn
    async with conn.transaction():
        await conn.execute("LOCK TABLE writer_lease IN ACCESS EXCLUSIVE MODE")
        for table in ("orderbook_deltas", "merges", "coverage"):
            await conn.execute(f"DELETE FROM {table} WHERE merge_no > $1", merge_no)
        await conn.execute("DELETE FROM sync_cursors")
        await conn.executemany(
            "INSERT INTO sync_cursors SELECT $1, $2, $3, $4, $5", [tuple(row) for row in cursors]
        )
        await conn.execute("UPDATE writer_lease SET merge_no = $1, epoch = epoch - 1", merge_no)


@pytest.mark.parametrize("is_running", [True, False])
async def test_a_production_restored_to_an_older_state_catches_up(
    databases: Databases, is_running: bool
) -> None:
    """The writer notices that it is not what it left, and reads again what the gatherers still have."""
    truth = make_truth(16, 900)
    rows = hear(truth)
    deduplicator = start(databases.gatherers, databases.production)
    await databases.zones["a"].write(rows[:300])
    await deduplicator.drained()
    merge_no = await databases.conn.fetchval("SELECT merge_no FROM writer_lease")
    cursors = await databases.conn.fetch("SELECT * FROM sync_cursors")
    await databases.zones["b"].write(rows[:600])
    await deduplicator.drained()
    newest = await databases.conn.fetchval("SELECT merge_no FROM writer_lease")
    if not is_running:
        await deduplicator.stop()
    await restore_production(databases, merge_no, cursors)
    if not is_running:
        deduplicator = start(databases.gatherers, databases.production)
    await databases.zones["c"].write(rows)
    await deduplicator.until(lambda health: health.get("merge_no", 0) > newest)
    await deduplicator.drained()
    await deduplicator.stop()
    merged = await merged_keys(databases.conn)
    assert sorted(merged) == sorted(true_keys(truth))
    numbers = await databases.conn.fetch("SELECT DISTINCT merge_no FROM orderbook_deltas")
    assert all(no <= merge_no or no > newest for (no,) in numbers)


async def test_one_gatherer_away_does_not_delay_the_others(databases: Databases) -> None:
    """Its zone says so; the others are merged to their end."""
    gone = databases.gatherers["c"]
    nowhere = Target(gone.host, 1, gone.database, gone.user, gone.password)
    truth = make_truth(17, 300)
    await databases.zones["a"].write(hear(truth))
    gatherers = {**databases.gatherers, "c": nowhere}
    async with running(gatherers, databases.production) as deduplicator:
        await deduplicator.drained("a", "b")
        zones = deduplicator.health["gatherers"]
        assert zones["c"]["status"] == "away"
        assert zones["a"]["status"] == zones["b"]["status"] == "reading"
        await deduplicator.until(lambda health: health["ready"])
        assert not deduplicator.health["drained"]
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_an_emptied_gatherer_is_a_new_one_and_admitted_at_once(databases: Databases) -> None:
    """A new identity in a known zone: an event row, and its rows are merged like any."""
    truth = make_truth(18, 300)
    rows = hear(truth)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["a"].write(rows[:150])
        await deduplicator.drained()
        await wipe(databases.gatherers["a"])
        await databases.zones["a"].renew_lanes()
        await databases.zones["a"].write(rows[100:])
        await deduplicator.until(lambda health: health["gatherers"]["a"]["gatherer"] > 3)
        await deduplicator.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    kinds = await event_kinds(databases.conn)
    assert kinds == ["gatherer_admitted"] * 3 + ["gatherer_new_identity"]


async def wipe(target: Target) -> None:
    """Empty a gatherer database as a new volume would be, and end every connection to it."""
    async with connect(target) as conn:
        await conn.execute(
            "TRUNCATE lanes, ingest_batches, lane_acknowledgements, lane_releases, orderbook_deltas"
        )
        await conn.execute("UPDATE gatherer_identity SET identity = gen_random_uuid()")
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
