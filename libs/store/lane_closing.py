"""Closing lanes: their last number is written down once it is final, by their own process or by whoever buries it."""

from uuid import UUID

from libs.store.pool import AnyConnection, map_store_errors

_LOCK_LANES = """
select lane from lanes
where closed_at is null and (lane = $1 or process = $2 or instance = $3) and instance is distinct from $4
order by lane for update
"""

_CLOSE_LANES = """
update lanes set closed_at = clock_timestamp(),
    last_batch_no = coalesce((select max(batch_no) from ingest_batches b where b.lane = lanes.lane), 0)
where lane = any($1)
"""


async def close_dead_lanes(
    conn: AnyConnection,
    *,
    process: str | None = None,
    instance: UUID | None = None,
    survivor: UUID | None = None,
) -> list[UUID]:
    """Close the open lanes of a process (all its instances) or of one instance; return the lanes closed.

    Waits for a commit that still runs on one of them, so that last_batch_no is final. A new process calls it with its
    own process name and itself as survivor; the registry with the process whose lease has expired.

    Args:
        conn: not inside a transaction.
        process: the process's name.
        instance: the UUID of one start of a process.
        survivor: the instance whose lanes stay open.

    Raises:
        StoreUnavailable: the database is away, or a commit took longer than the statement time-out.
    """
    with map_store_errors():
        async with conn.transaction(isolation="read_committed"):
            return await close_lanes(conn, process=process, instance=instance, survivor=survivor)


async def close_lanes(
    conn: AnyConnection,
    *,
    lane: UUID | None = None,
    process: str | None = None,
    instance: UUID | None = None,
    survivor: UUID | None = None,
) -> list[UUID]:
    """Do so inside a transaction of the caller's, or close one lane."""
    # Two statements: the second needs a snapshot taken after the lock was granted, or it would not see the number of
    # the commit it waited for.
    lanes = [
        row["lane"] for row in await conn.fetch(_LOCK_LANES, lane, process, instance, survivor)
    ]
    if lanes:
        await conn.execute(_CLOSE_LANES, lanes)
    return lanes
