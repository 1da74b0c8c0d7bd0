"""A gatherer's database that is an older copy of itself, or another one: told once, and production stays exact."""

from dataclasses import replace

from libs.marketdata.tables import Family
from libs.store.pool import Target, connect
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.test_faults import wipe
from tests.integration.deduplicator.test_unsound import quarantined
from tests.integration.deduplicator.world import (
    Running,
    copy_database,
    event_kinds,
    hear,
    make_truth,
    merged_keys,
    restore_database,
    running,
    true_keys,
)

ADMITTED = ["gatherer_admitted"] * 3


async def told(databases: Databases) -> list[str]:
    """What was told of databases that went back."""
    query = "SELECT detail FROM operational_events WHERE kind = 'gatherer_went_back' ORDER BY at"
    return [row["detail"] for row in await databases.conn.fetch(query)]


def restores(deduplicator: Running, zone: str = "a") -> float:
    """The alarm's metric."""
    return deduplicator.metric("gatherer_database_changes_total", gatherer=zone, change="restored")


async def test_a_gatherer_restored_while_the_deduplicator_was_away_is_told_of_once(
    databases: Databases,
) -> None:
    """Its lane ends before what was merged, and its writer has left it: an event, an alarm, and no row lost or doubled."""
    truth = make_truth(61, 500)
    rows, zone, target = hear(truth), databases.zones["a"], databases.gatherers["a"]
    async with running(databases.gatherers, databases.production) as deduplicator:
        await zone.write(rows[:200], batch_max=20)
        await deduplicator.drained()
        await copy_database(target)
        await zone.go_on(rows[200:250])
        await zone.go_on(rows[250:300])
        await deduplicator.drained()
    lane, last = zone.writers[Family.DELTAS].lane, zone.writers[Family.DELTAS].confirmed
    await restore_database(target)
    # 300 to 350 were committed, never merged, and went with the database; zone b has them.
    await zone.go_on(rows[350:], held=rows[280:300])
    await databases.zones["b"].write(rows[280:400])
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
        assert restores(deduplicator) == 1
        assert deduplicator.health["gatherers"]["a"]["status"] == "reading"
    detail = f"lane {lane} ends at {last - 2}, {last} was merged"
    assert await told(databases) == [detail]
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
        assert restores(deduplicator) == 0
    assert await told(databases) == [detail]
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    reasons = await databases.conn.fetch("SELECT reason FROM gaps")
    assert [row["reason"] for row in reasons] == ["database_went_back"]


async def test_a_copy_older_than_its_lanes_is_told_of_while_we_run_and_every_time(
    databases: Databases,
) -> None:
    """It does not know the lanes merged since: seen at the next connection; a second restore is a second event."""
    truth = make_truth(62, 300)
    rows, zone, target = hear(truth), databases.zones["a"], databases.gatherers["a"]
    async with running(databases.gatherers, databases.production) as deduplicator:
        for turn in range(2):
            await copy_database(target)
            await zone.renew_lanes()
            await zone.go_on(rows[turn * 100 : turn * 100 + 100])
            await deduplicator.drained()
            lost = zone.writers[Family.DELTAS].lane
            await restore_database(target)
            await deduplicator.drained()
            details = await told(databases)
            assert len(details) == turn + 1
            assert f"lane {lost} is unknown, 1 was merged" in details[turn]
        assert restores(deduplicator) == 2
        await zone.go_on(rows[200:])
        await deduplicator.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_an_acknowledgement_that_is_gone_tells_of_a_restore_too(databases: Databases) -> None:
    """Nothing merged is missing, but the database shows a smaller merge_no than was written to it."""
    truth = make_truth(63, 200)
    rows, zone, target = hear(truth), databases.zones["a"], databases.gatherers["a"]
    async with running(databases.gatherers, databases.production) as deduplicator:
        await zone.write(rows[:100], batch_max=1000)
        await deduplicator.drained()
        await copy_database(target)
        async with connect(replace(target, database=f"{target.database}_older")) as copy:
            await copy.execute("DELETE FROM lane_acknowledgements")
        async with connect(target) as conn:
            while not await conn.fetchval("SELECT count(*) FROM lane_acknowledgements"):
                await conn.execute("SELECT pg_sleep(0.01)")
        await restore_database(target)
        await zone.go_on(rows[100:])
        await deduplicator.drained()
    (detail,) = await told(databases)
    assert "was acknowledged, it shows 0" in detail
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_a_long_absence_is_not_a_restore(databases: Databases) -> None:
    """Thousands of merges later it shows a small merge_no, or none at all: no event, it is merged and goes on."""
    truth = make_truth(64, 400)
    rows, zone = hear(truth), databases.zones["a"]
    await zone.write(rows[:200])
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
    await databases.conn.execute(
        "WITH next AS (UPDATE writer_lease SET merge_no = merge_no + 500000 RETURNING merge_no)"
        " INSERT INTO merges SELECT merge_no, now(), 0, 0 FROM next"
    )
    await databases.conn.execute("UPDATE sync_cursors SET merged_at = now() - interval '20 days'")
    async with connect(databases.gatherers["a"]) as conn:
        # Killed between merge and acknowledgement.
        await conn.execute("DELETE FROM lane_acknowledgements")
    await zone.write(rows[200:])
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
        assert restores(deduplicator) == 0
    assert await event_kinds(databases.conn) == ADMITTED
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_the_cursor_of_a_lane_deleted_long_ago_goes_and_no_other(
    databases: Databases,
) -> None:
    """Forty days after it moved last, and only if its gatherer has the lane no longer."""
    rows, zone = hear(make_truth(67, 90)), databases.zones["a"]
    lanes = []
    for turn in range(3):
        await zone.renew_lanes()
        await zone.write(rows[turn * 30 : turn * 30 + 30])
        lanes.append(zone.writers[Family.DELTAS].lane)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
    async with connect(databases.gatherers["a"]) as conn:
        for table in ("ingest_batches", "lane_acknowledgements", "lanes"):
            await conn.execute(f"DELETE FROM {table} WHERE lane = ANY($1)", lanes[:2])
    old = "UPDATE sync_cursors SET merged_at = now() - $2::int * interval '1 day' WHERE lane = $1"
    for lane, days in zip(lanes, (41, 39, 50), strict=True):
        await databases.conn.execute(old, lane, days)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
    kept = await databases.conn.fetch("SELECT lane FROM sync_cursors")
    assert {row["lane"] for row in kept} == set(lanes[1:])
    assert await event_kinds(databases.conn) == ADMITTED


async def test_a_quarantined_gatherer_that_is_emptied_is_admitted_at_once(
    databases: Databases,
) -> None:
    """Nobody has to re-admit what is no longer there; the metric and an event row tell of the new database."""
    truth = make_truth(65, 200)
    rows, zone, target = hear(truth), databases.zones["a"], databases.gatherers["a"]
    await zone.write(rows, batch_max=10)
    await break_a_row(target)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await quarantined(deduplicator, "a")
        await wipe(target)
        await zone.renew_lanes()
        await zone.write(rows)
        await deduplicator.until(lambda health: health["gatherers"]["a"]["gatherer"] > 3)
        await deduplicator.drained()
        name = "gatherer_database_changes_total"
        assert deduplicator.metric(name, gatherer="a", change="new_identity") == 1
        assert deduplicator.metric("gatherer_quarantined", gatherer="a") == 0
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    kinds = await event_kinds(databases.conn)
    assert kinds == [*ADMITTED, "gatherer_quarantined", "gatherer_new_identity"]


async def break_a_row(target: Target) -> None:
    """Change one row behind the ledger's back."""
    async with connect(target) as conn:
        await conn.execute(
            "UPDATE orderbook_deltas SET size_delta = size_delta + 1 WHERE ctid = (SELECT min(ctid) FROM orderbook_deltas)"
            " AND tableoid = (SELECT min(tableoid) FROM orderbook_deltas)"
        )


async def test_a_production_restored_to_an_older_copy_catches_up_above_what_was_acknowledged(
    databases: Databases,
) -> None:
    """The database itself is put back; the gatherers have it all, and no merge_no they have seen is given twice."""
    truth = make_truth(66, 900)
    rows = hear(truth)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["a"].write(rows[:300])
        await deduplicator.drained()
    before = await databases.conn.fetchval("SELECT max(merge_no) FROM merges")
    await copy_database(databases.production)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["b"].write(rows[:700])
        await databases.zones["c"].write(rows[200:650])
        await deduplicator.drained()
        newest = deduplicator.health["merge_no"]
        await restore_database(databases.production)
        await databases.zones["a"].write(rows[300:])
        await deduplicator.drained()
        assert deduplicator.health["merge_no"] > newest
    assert newest > before
    async with connect(databases.production) as conn:
        assert sorted(await merged_keys(conn)) == sorted(true_keys(truth))
        numbers = [row[0] for row in await conn.fetch("SELECT merge_no FROM merges ORDER BY 1")]
        assert all(number <= before or number > newest for number in numbers)
        facts = await conn.fetchval("SELECT sum(facts) FROM coverage WHERE NOT is_late")
        assert facts == len(true_keys(truth))
