"""Lag by gatherer and minute, against what production's own rows say."""

from libs.marketdata.tables import Family
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import CLOCK, hear, make_truth, running, ticker

_OF_ROWS = """
SELECT f.received_at / 60000000 * 60000000 AS minute, count(*) AS rows,
       percentile_disc(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP
           (ORDER BY extract(epoch FROM m.merged_at)::float8 - f.received_at / 1e6::float8) AS quantiles
  FROM orderbook_deltas f JOIN merges m USING (merge_no)
 WHERE f.gatherer = $1
 GROUP BY 1 ORDER BY 1
"""
_SEEN = """
SELECT minute, rows, ARRAY[p50_s, p90_s, p99_s, max_s] AS quantiles FROM lag_by_minute
 WHERE gatherer = $1 AND table_name = 'orderbook_deltas' ORDER BY minute
"""


async def test_quantiles_of_lag_are_those_of_the_merged_rows(databases: Databases) -> None:
    """Over many transactions and two minutes, each quantile is within 4.6 % of the rows' own, the longest exact."""
    rows = [row._replace(received_at=row.exchange_ts + row.seq * 70_000) for row in hear(make_truth(1, 1500))]  # fmt: skip
    async with running(databases.gatherers, databases.production) as deduplicator:
        for start in range(0, len(rows), 500):
            await databases.zones["a"].write(rows[start : start + 500])
            await deduplicator.drained()
    conn = databases.conn
    gatherer = await conn.fetchval("SELECT gatherer FROM gatherers WHERE zone = 'a'")
    expected, seen = await conn.fetch(_OF_ROWS, gatherer), await conn.fetch(_SEEN, gatherer)
    assert [(row["minute"], row["rows"]) for row in seen] == [
        (row["minute"], row["rows"]) for row in expected
    ]
    assert len(seen) >= 2 and await conn.fetchval("SELECT count(*) FROM merge_lags") > len(seen)
    for ours, theirs in zip(seen, expected, strict=True):
        *quantiles, longest = zip(ours["quantiles"], theirs["quantiles"], strict=True)
        assert all(abs(found / true - 1) < 0.046 for found, true in quantiles), quantiles
        assert abs(longest[0] - longest[1]) < 2e-6


async def test_every_gatherers_copies_have_their_own_lag(databases: Databases) -> None:
    """A copy that production has already counts all the same, under the gatherer that was late with it."""
    moment = CLOCK.now()
    async with running(databases.gatherers, databases.production) as deduplicator:
        for zone, late in (("a", 0), ("b", 600_000_000)):
            row = ticker(1, moment)._replace(received_at=moment - late)
            await databases.zones[zone].write_other("tickers", [row], Family.TRADES)
            await deduplicator.drained()
    found = await databases.conn.fetch(
        "SELECT zone, rows, p50_s FROM lag_by_minute JOIN gatherers USING (gatherer) ORDER BY zone"
    )
    assert [(row["zone"], row["rows"], row["p50_s"] > 500) for row in found] == [
        ("a", 1, False),
        ("b", 1, True),
    ]
