"""What stands beside the rows of a merge: cursors, the merge itself, coverage, lags, conflicts, events, marks of retention."""

from collections.abc import Sequence
from datetime import timedelta

from libs.store import merge_sql as sql
from libs.store.merge_transaction import EventRow, Merged, MergeTransaction
from libs.store.pool import Connection, map_store_errors


async def write_records(conn: Connection, transaction: MergeTransaction, merged: Merged) -> None:
    """Write all that stands beside the rows: cursors, the merge itself, coverage, lags, conflicts, events."""
    no, cursors = merged.merge_no, transaction.cursors
    columns = [list(column) for column in zip(*cursors, strict=True)] or [[], [], [], []]
    await conn.execute(sql.WRITE_CURSORS, *columns)
    merged_at = await conn.fetchval(
        sql.WRITE_MERGE, no, transaction.rows_read, merged.rows_inserted
    )
    coverage = [(no, *row) for row in transaction.settle(merged.present)]
    if coverage:
        await conn.executemany(sql.WRITE_COVERAGE, coverage)
    lags = [(no, *row) for row in transaction.measure(merged_at)]
    if lags:
        await conn.executemany(sql.WRITE_LAG, lags)
    if merged.conflicts:
        await conn.executemany(sql.WRITE_CONFLICT, [(no, *row) for row in merged.conflicts])
    await record_events(conn, transaction.events)


async def record_events(conn: Connection, events: Sequence[EventRow]) -> None:
    """Write event rows inside the caller's transaction."""
    if events:
        await conn.executemany(sql.WRITE_EVENT, events)


async def forget_merges(conn: Connection, keep_s: float) -> int:
    """Delete the oldest rows of `merges`, a bounded number a call, the newest never; needs no lease.

    Args:
        keep_s: age from which a row may go, seconds.

    Raises:
        StoreUnavailable: production is away.
    """
    with map_store_errors():
        status = await conn.execute(sql.FORGET_MERGES, timedelta(seconds=keep_s))
    return int(status.rpartition(" ")[2])
