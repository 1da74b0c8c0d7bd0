"""From a moment to the number of the first batch that was committed since: what makes recent rows findable by time.

Rows carry the number of their batch, and the indexes on it are small and kept up. Numbers are drawn as batches begin, so
they rise with the time of commit but for the length of a transaction.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, LiteralString

from libs.store.pool import AnyConnection, map_store_errors

SLACK_S: Final = 60.0
"""Longer than a batch's transaction takes, seconds."""

_ENDS: LiteralString = "select min(batch_id) as first, max(batch_id) as last from ingest_batches"
_AT: LiteralString = """
select batch_id, committed_at from ingest_batches where batch_id >= $1 order by batch_id limit 1
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def first_batch_since(conn: AnyConnection, moment: int) -> int:
    """Return a batch_id such that every batch committed at or after the moment (microseconds) has it or a larger one.

    Some thirty looks at the ledger's index, however long it is.

    Raises:
        StoreUnavailable: the database is away.
    """
    wanted = _EPOCH + timedelta(microseconds=moment, seconds=-SLACK_S)
    with map_store_errors():
        ends = await conn.fetchrow(_ENDS)
        if ends is None or ends["first"] is None:
            return 0
        low, high = int(ends["first"]), int(ends["last"]) + 1
        while low < high:
            middle = (low + high) // 2
            row = await conn.fetchrow(_AT, middle)
            if row is None or row["committed_at"] >= wanted:
                high = middle
            else:
                low = int(row["batch_id"]) + 1
    return low
