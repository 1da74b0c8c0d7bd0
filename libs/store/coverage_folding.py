"""Increments of old minutes summed in place: the views over them say the same, and read a hundredth.

Every merge appends its increments of coverage and lag, some thirty rows a second; minutes that are over get few more.
Their rows are replaced by their sums in one transaction. What comes later to such a minute stands beside the sum.
"""

from typing import Final, LiteralString

from libs.store.pool import Connection, map_store_errors

MINUTES_MAX: Final = 30
"""Minutes folded in one transaction at most."""
STATEMENT_S_MAX: Final = 10.0

_UNFOLDED: LiteralString = """
SELECT minute FROM merge_lags WHERE minute >= $1 AND minute < $2
 GROUP BY minute HAVING count(*) > count(DISTINCT (gatherer, table_name))
UNION
SELECT minute FROM coverage WHERE minute >= $1 AND minute < $2
 GROUP BY minute HAVING count(*) > count(DISTINCT (table_name, gatherers, is_late))
 ORDER BY minute LIMIT $3
"""
_FOLD_COVERAGE: LiteralString = """
WITH old AS (DELETE FROM coverage WHERE minute = ANY($1::bigint[]) RETURNING *)
INSERT INTO coverage (merge_no, table_name, minute, gatherers, is_late, facts)
SELECT max(merge_no), table_name, minute, gatherers, is_late, sum(facts)
  FROM old GROUP BY table_name, minute, gatherers, is_late HAVING sum(facts) <> 0
"""
_FOLD_LAGS: LiteralString = """
WITH old AS (DELETE FROM merge_lags WHERE minute = ANY($1::bigint[]) RETURNING *), summed AS (
    SELECT max(merge_no) AS merge_no, gatherer, table_name, minute, max(lag_max) AS lag_max, bucket, sum(count) AS count
      FROM old CROSS JOIN LATERAL unnest(buckets, counts) AS b (bucket, count)
     GROUP BY gatherer, table_name, minute, bucket)
INSERT INTO merge_lags (merge_no, gatherer, table_name, minute, lag_max, buckets, counts)
SELECT max(merge_no), gatherer, table_name, minute, max(lag_max), array_agg(bucket ORDER BY bucket),
       array_agg(count ORDER BY bucket)
  FROM summed GROUP BY gatherer, table_name, minute
"""


async def fold_increments(conn: Connection, start: int, end: int) -> int:
    """Fold the increments of the next minutes in [start, end); return how many minutes, to be called again.

    Args:
        conn: not inside a transaction.
        start, end: microseconds; end should be so old that few increments still come.

    Raises:
        StoreUnavailable: production is away, or it took too long; nothing was done.
    """
    with map_store_errors():
        async with conn.transaction():
            await conn.execute(f"SET LOCAL statement_timeout = {round(STATEMENT_S_MAX * 1000)}")
            rows = await conn.fetch(_UNFOLDED, start, end, MINUTES_MAX)
            minutes = [row["minute"] for row in rows]
            if minutes:
                await conn.execute(_FOLD_COVERAGE, minutes)
                await conn.execute(_FOLD_LAGS, minutes)
    return len(minutes)
