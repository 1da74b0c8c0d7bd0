"""A gatherer whose ledger and rows disagree is set aside by name; the others go on, and an operator brings it back."""

from typing import Any

from libs.marketdata.tables import Family
from libs.store.pool import connect
from libs.store.readmission import readmit
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    Running,
    event_kinds,
    hear,
    keys,
    listened,
    make_truth,
    merged_keys,
    running,
    start,
    ticker,
    true_keys,
)


async def quarantined(deduplicator: Running, zone: str) -> dict[str, Any]:
    """Wait until a zone is quarantined; return its entry."""
    await deduplicator.until(lambda h: h["gatherers"][zone]["status"] == "quarantined")
    entry: dict[str, Any] = deduplicator.health["gatherers"][zone]
    return entry


async def test_a_changed_row_quarantines_its_gatherer_and_the_others_go_on(
    databases: Databases,
) -> None:
    """What is sound before the fault is merged; after re-admission with the batch given up, all the rest is."""
    truth = make_truth(21, 600)
    rows = hear(truth)
    for start_at in range(0, 600, 50):
        await databases.zones["a"].write(rows[start_at : start_at + 50], batch_max=1000)
    await databases.zones["b"].write(rows[:500])
    async with connect(databases.gatherers["a"]) as conn:
        lane = databases.zones["a"].writers[Family.DELTAS].lane
        bad = await conn.fetchrow(
            "SELECT batch_id, row_counts FROM ingest_batches WHERE lane = $1 AND batch_no >= 4"
            " ORDER BY batch_no LIMIT 1",
            lane,
        )
        assert bad is not None
        await conn.execute(
            "UPDATE orderbook_deltas SET size_delta = size_delta + 1 WHERE batch_id = $1"
            " AND ctid = (SELECT min(ctid) FROM orderbook_deltas WHERE batch_id = $1)",
            bad["batch_id"],
        )
    async with running(databases.gatherers, databases.production) as deduplicator:
        entry = await quarantined(deduplicator, "a")
        assert "batch_no=4 hash" in entry["last_error"]
        await deduplicator.drained("b", "c")
        # The sound batches before it may still be on their way to the writer.
        await deduplicator.until(lambda health: health["gatherers"]["a"]["pages_waiting"] == 0)
        before = await databases.conn.fetchval(
            "SELECT batch_no FROM sync_cursors WHERE lane = $1", lane
        )
        assert before == 3
        done = await readmit(databases.gatherers["a"], databases.production, skip_unsound=True)
        assert done.stepped_over == {lane: (3, 4)}
        await deduplicator.drained()
    expected = keys(rows[:500]) | keys(rows[:150]) | keys(rows[200:])
    assert sorted(await merged_keys(databases.conn)) == sorted(expected) == sorted(true_keys(truth))
    gaps = await databases.conn.fetch("SELECT reason, batch_no, lane FROM gaps")
    assert [tuple(gap) for gap in gaps] == [("dropped_at_gatherer", 4, lane)]
    kinds = await event_kinds(databases.conn)
    assert kinds[3:] == ["gatherer_quarantined", "gatherer_readmitted"]


async def test_a_hole_in_a_lane_is_named_and_stepped_over_on_re_admission(
    databases: Databases,
) -> None:
    """A restarted deduplicator still knows that the gatherer is quarantined."""
    truth = make_truth(22, 300)
    rows = hear(truth)
    for first in range(0, 300, 50):
        await databases.zones["a"].write(rows[first : first + 50], batch_max=1)
    lane = databases.zones["a"].writers[Family.DELTAS].lane
    async with connect(databases.gatherers["a"]) as conn:
        await conn.execute("DELETE FROM ingest_batches WHERE batch_no BETWEEN 101 AND 103")
    async with running(databases.gatherers, databases.production) as deduplicator:
        entry = await quarantined(deduplicator, "a")
        assert entry["last_error"] == f"lane={lane} batch_no=101 hole"
    deduplicator = start(databases.gatherers, databases.production)
    await quarantined(deduplicator, "a")
    assert await databases.conn.fetchval("SELECT count(*) FROM orderbook_deltas") == 100
    await readmit(databases.gatherers["a"], databases.production, skip_unsound=False)
    await deduplicator.drained()
    await deduplicator.stop()
    expected = keys(rows) - keys(rows[100:103])
    assert sorted(await merged_keys(databases.conn)) == sorted(expected)


async def test_the_missing_end_of_a_closed_lane_is_given_up_on_re_admission(
    databases: Databases,
) -> None:
    """There is no number behind it to go on from; the loss is a gap, and the database is not taken for an older copy."""
    rows = hear(make_truth(27, 100))
    zone = databases.zones["a"]
    await zone.write(rows, batch_max=1)
    lane = zone.writers[Family.DELTAS].lane
    await zone.close()
    async with connect(databases.gatherers["a"]) as conn:
        await conn.execute("DELETE FROM ingest_batches WHERE batch_no > 98")
    async with running(databases.gatherers, databases.production) as deduplicator:
        entry = await quarantined(deduplicator, "a")
        assert entry["last_error"] == f"lane={lane} batch_no=99 hole"
        done = await readmit(databases.gatherers["a"], databases.production, skip_unsound=False)
        assert done.stepped_over == {lane: (98, 100)}
        await deduplicator.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(keys(rows[:98]))
    gaps = await databases.conn.fetch("SELECT reason, batch_no FROM gaps")
    assert [tuple(gap) for gap in gaps] == [("dropped_at_gatherer", 99)]
    kinds = await event_kinds(databases.conn)
    assert kinds[3:] == ["gatherer_quarantined", "gatherer_readmitted"]


async def test_a_batch_dropped_at_the_gatherer_is_a_gap_and_claims_nothing(
    databases: Databases,
) -> None:
    """Its rows are gone; its listening is not merged, the loss stands in gaps, the lane goes on."""
    truth = make_truth(23, 100)
    rows, now = hear(truth), CLOCK.now()
    zone = databases.zones["a"]
    await zone.write_together(rows[:50], [listened(50, now)])
    await zone.write_together(rows[50:], [listened(100, now)])
    async with connect(databases.gatherers["a"]) as conn:
        await conn.execute("UPDATE ingest_batches SET dropped_at = now() WHERE batch_no = 1")
        await conn.execute(
            "DELETE FROM orderbook_deltas WHERE batch_id = (SELECT min(batch_id) FROM ingest_batches)"
        )
    for _ in range(2):
        async with running(databases.gatherers, databases.production) as deduplicator:
            await deduplicator.drained()
        await databases.conn.execute("DELETE FROM sync_cursors")
    assert sorted(await merged_keys(databases.conn)) == sorted(keys(rows[50:]))
    claims = await databases.conn.fetch("SELECT batch_no, seq_to FROM listen_ranges")
    assert [tuple(claim) for claim in claims] == [(2, 100)]
    gaps = await databases.conn.fetch("SELECT batch_no, reason FROM gaps")
    assert [tuple(gap) for gap in gaps] == [(1, "dropped_at_gatherer")]


async def test_releases_follow_the_copy_of_the_cursors_that_is_old_enough(
    databases: Databases,
) -> None:
    """Acknowledged at once with merge_no, released only once a copy is older than release_after_s."""
    truth = make_truth(24, 100)
    await databases.zones["a"].write(hear(truth))
    async with (
        running(
            databases.gatherers, databases.production, cursor_copy_s=0.2, release_after_s=3600.0
        ) as deduplicator,
        connect(databases.gatherers["a"]) as conn,
    ):
        await deduplicator.drained()
        await deduplicator.until(lambda _: True)
        last = await conn.fetchval("SELECT max(batch_no) FROM ingest_batches")
        await until_value(deduplicator, conn, "SELECT batch_no FROM lane_acknowledgements", last)
        # Copies that hold it are there, but none is old enough.
        copied = "SELECT max(batch_no) FROM sync_cursor_copies"
        await until_value(deduplicator, databases.conn, copied, last)
        copies = "SELECT count(DISTINCT copied_at) > 1 FROM sync_cursor_copies"
        await until_value(deduplicator, databases.conn, copies, True)
        assert await conn.fetchval("SELECT count(*) FROM lane_releases") == 0
        await databases.conn.execute(
            "UPDATE sync_cursor_copies SET copied_at = copied_at - interval '2 hours'"
        )
        await until_value(deduplicator, conn, "SELECT released_batch_no FROM lane_releases", last)
        shown = await conn.fetchval("SELECT merge_no FROM lane_acknowledgements")
        assert shown == await databases.conn.fetchval("SELECT max(merge_no) FROM merges")


async def until_value(deduplicator: Running, conn: Any, query: str, value: object) -> None:
    """Ask until the answer is this; bounded by what `drained` allows."""
    for _ in range(1200):
        if await conn.fetchval(query) == value:
            return
        await deduplicator.drained()
        await conn.execute("SELECT pg_sleep(0.05)")
    raise AssertionError(f"{query} did not become {value}")


async def test_a_time_far_off_is_stored_and_told(databases: Databases) -> None:
    """A row more than a day from its receipt goes in, with an event row."""
    now = CLOCK.now()
    far = ticker(1, now)._replace(exchange_ts=now - 3 * 86_400_000_000)
    await databases.zones["a"].write_other("tickers", [far, ticker(2, now)], Family.TRADES)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
    assert await databases.conn.fetchval("SELECT count(*) FROM tickers") == 2
    assert "far_exchange_ts" in await event_kinds(databases.conn)


async def test_whole_streams_that_disagree_about_a_millisecond_are_told(
    databases: Databases,
) -> None:
    """Same market and millisecond, other order: both are merged, an event row names the market."""
    base = make_truth(25, 1)[0][1]
    order = [("MARKET-0", base + index * 1000, 50_000, True, 100) for index in range(4)]
    twisted = [*order[:2], ("MARKET-0", base + 1000, 51_000, True, 100), *order[2:]]
    other = [order[0], twisted[2], order[1], *order[2:]]
    await databases.zones["a"].write(hear(twisted))
    await databases.zones["b"].write(hear(other))
    await databases.zones["c"].write(hear(twisted))
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
        assert deduplicator.health["disagreements"] >= 1
    assert "streams_disagree" in await event_kinds(databases.conn)
