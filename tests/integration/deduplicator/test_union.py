"""Three copies with holes become one exact set."""

from libs.marketdata.tables import Family
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    coverage_of,
    hear,
    keys,
    make_truth,
    merged_keys,
    running,
    ticker,
    trade,
    true_keys,
)


async def test_the_union_of_three_copies_with_missing_spans_is_the_truth(
    databases: Databases,
) -> None:
    """Every span is missing in one zone only; production holds each change once, and counts who delivered it."""
    truth = make_truth(1, 1500)
    heard = {
        zone: hear(truth, [(start, start + 60) for start in range(first, 1400, 400)])
        for zone, first in (("a", 50), ("b", 180), ("c", 300))
    }
    async with running(databases.gatherers, databases.production) as deduplicator:
        for zone, rows in heard.items():
            await databases.zones[zone].write(rows)
        await deduplicator.drained()
        health = deduplicator.health
    merged = await merged_keys(databases.conn)
    assert sorted(merged) == sorted(true_keys(truth))
    assert health["rows_inserted"] == len(merged)
    assert health["duplicates"] == sum(map(len, heard.values())) - len(merged)
    coverage = await coverage_of(databases.conn, "orderbook_deltas")
    assert sum(coverage.values()) == len(merged)
    numbers = {zone: health["gatherers"][zone]["gatherer"] for zone in "abc"}
    for zone, rows in heard.items():
        delivered = sum(facts for who, facts in coverage.items() if numbers[zone] in who)
        assert delivered == len(keys(rows))


async def test_multiplicity_is_the_largest_of_any_stream_never_the_sum(
    databases: Databases,
) -> None:
    """Two identical changes in one millisecond, heard by halves and whole, are two in production."""
    moment = make_truth(1, 1)[0][1]
    twice = [("MARKET-0", moment, 50_000, True, 100)] * 2
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["a"].write(hear(twice, [(0, 1)]))
        await databases.zones["b"].write(hear(twice))
        await databases.zones["c"].write(hear(twice, [(1, 2)]))
        await deduplicator.drained()
    assert sorted(key[-1] for key in await merged_keys(databases.conn)) == [1, 2]


async def test_trades_are_one_by_trade_id_alone_and_other_content_is_a_conflict(
    databases: Databases,
) -> None:
    """A REST copy with another time is dropped, in memory and by look-up; the first content stays."""
    now = CLOCK.now()
    first = [trade(number, now) for number in range(10)]
    copies = [row._replace(exchange_ts=now - 7_000_000) for row in first]
    copies[3] = copies[3]._replace(size=999)
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["a"].write_other("trades", first, Family.TRADES)
        await deduplicator.drained()
        await databases.zones["b"].write_other("trades", copies, Family.TRADES)
        await deduplicator.drained()
    async with running(databases.gatherers, databases.production) as deduplicator:
        await databases.zones["c"].write_other("trades", copies, Family.TRADES)
        await deduplicator.drained()
    rows = await databases.conn.fetch("SELECT trade_id, exchange_ts, size FROM trades")
    assert sorted(tuple(row) for row in rows) == sorted((f"trade-{n}", now, 100) for n in range(10))
    conflicts = await databases.conn.fetch("SELECT key, kept, refused FROM conflicts")
    assert [row["key"] for row in conflicts] == ["trade-3", "trade-3"]
    assert all("size=100" in row["kept"] and "size=999" in row["refused"] for row in conflicts)
    late = await databases.conn.fetchval("SELECT sum(facts) FROM coverage WHERE is_late")
    assert late == 10
    assert sum((await coverage_of(databases.conn, "trades")).values()) == 10


async def test_tickers_are_a_set_in_a_millisecond(databases: Databases) -> None:
    """A, B, A inside one millisecond keeps A and B, whoever delivers them."""
    now = CLOCK.now()
    rows = [ticker(1, now), ticker(2, now), ticker(1, now)]
    async with running(databases.gatherers, databases.production) as deduplicator:
        for zone in databases.zones.values():
            await zone.write_other("tickers", rows, Family.TRADES)
        await deduplicator.drained()
    found = await databases.conn.fetch("SELECT content_hash FROM tickers ORDER BY 1")
    assert [row[0] for row in found] == [1, 2]
