"""Rows that production cannot hold: their gatherer is set aside with the batch named, nobody else waits for it."""

import random

from libs.marketdata.tables import Family
from libs.store.pool import connect
from libs.store.readmission import readmit
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.test_unsound import quarantined
from tests.integration.deduplicator.world import (
    CLOCK,
    event_kinds,
    hear,
    make_truth,
    merged_keys,
    running,
    start,
    ticker,
    trade,
    true_keys,
)

LONG = random.Random(5).randbytes(4000).hex()
"""Too long for a key of an index, however it is compressed; a gatherer has no such index and takes it."""


async def trade_ids(databases: Databases) -> list[str]:
    """The trades of production, in order."""
    found = await databases.conn.fetch("SELECT trade_id FROM trades ORDER BY trade_id")
    return [row["trade_id"] for row in found]


async def test_times_at_the_ends_of_bigint_are_stored_and_told(databases: Databases) -> None:
    """An exchange may say any time: it is a row of the default partition, from wherever it comes, and never a stop."""
    moments = [2**63 - 1, -(2**63), CLOCK.now()]
    rows = [trade(number, moment) for number, moment in enumerate(moments)]
    rows = [row._replace(received_at=CLOCK.now()) for row in rows]
    tickers = [ticker(number, 0)._replace(exchange_ts=m) for number, m in enumerate(moments)]
    for zone in databases.zones.values():
        await zone.write_other("trades", rows, Family.TRADES)
        await zone.write_other("tickers", tickers, Family.TRADES)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
        states = {zone["status"] for zone in deduplicator.health["gatherers"].values()}
    assert states == {"reading"}
    assert await trade_ids(databases) == ["trade-0", "trade-1", "trade-2"]
    assert await databases.conn.fetchval("SELECT count(*) FROM tickers") == 3
    assert "far_exchange_ts" in await event_kinds(databases.conn)


async def test_a_batch_production_cannot_hold_sets_its_gatherer_aside(
    databases: Databases,
) -> None:
    """All three arrive in one transaction; what is sound is merged, after re-admission without the batch the rest too."""
    truth, now = make_truth(51, 300), CLOCK.now()
    bad = databases.zones["a"]
    await bad.write_other("trades", [trade(1, now)], Family.TRADES)
    await bad.write_other(
        "trades", [trade(2, now), trade(3, now, ticker=LONG, trade_id=LONG)], Family.TRADES
    )
    await bad.write_other("trades", [trade(4, now)], Family.TRADES)
    lane = bad.writers[Family.TRADES].lane
    await databases.zones["b"].write(hear(truth))
    await databases.zones["c"].write_other("trades", [trade(5, now)], Family.TRADES)
    async with running(databases.gatherers, databases.production) as deduplicator:
        entry = await quarantined(deduplicator, "a")
        assert entry["last_error"].startswith(f"lane={lane} batch_no=2 refused: ProgramLimit")
        await deduplicator.drained("b", "c")
        assert await trade_ids(databases) == ["trade-1", "trade-5"]
        await databases.zones["c"].write_other("trades", [trade(6, now)], Family.TRADES)
        await deduplicator.drained("b", "c")
        assert entry["pages_waiting"] == 0
        done = await readmit(databases.gatherers["a"], databases.production, skip_unsound=True)
        assert done.stepped_over == {lane: (1, 2)}
        await deduplicator.drained()
    assert await trade_ids(databases) == ["trade-1", "trade-4", "trade-5", "trade-6"]
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    facts = await databases.conn.fetchval("SELECT sum(facts) FROM coverage WHERE NOT is_late")
    assert facts == len(true_keys(truth)) + 4
    gaps = await databases.conn.fetch("SELECT DISTINCT reason, batch_no FROM gaps")
    assert [tuple(gap) for gap in gaps] == [("dropped_at_gatherer", 2)]


async def test_the_refused_batch_is_met_again_when_nothing_changed(databases: Databases) -> None:
    """Re-admitted without giving the batch up, the gatherer is set aside again; the process lives through both."""
    now = CLOCK.now()
    await databases.zones["a"].write_other("trades", [trade(1, now, trade_id=LONG)], Family.TRADES)
    deduplicator = start(databases.gatherers, databases.production)
    await quarantined(deduplicator, "a")
    await readmit(databases.gatherers["a"], databases.production, skip_unsound=False)
    async with connect(databases.production) as conn:
        count = "SELECT count(*) FROM operational_events WHERE kind = 'gatherer_quarantined'"
        for _ in range(1200):
            if await conn.fetchval(count) == 2:
                break
            await conn.execute("SELECT pg_sleep(0.05)")
        assert await conn.fetchval(count) == 2
    await deduplicator.drained("b", "c")
    await deduplicator.stop()
    assert await trade_ids(databases) == []
