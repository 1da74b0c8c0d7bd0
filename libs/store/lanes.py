"""Lanes: one writer's numbered sequence of batches, each committed exactly once.

A lane is a random UUID of the writer, never a number of the database, so that no restored or emptied database can give
the same name to two contents. Batch n+1 starts only after n is committed; lanes are parallel. One transaction is the
ledger row first (it locks the lane and needs it open, and waits for a commit of the same number that still runs), then
the rows. Whoever loses its connection finds out by asking the ledger: the number is there with our digest (committed),
not there (repeat it), there with another digest (a second writer: stop), or the lane itself is behind (leave it).
"""

from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from libs.marketdata.tables import Family
from libs.store.batches import SCHEMA_VERSION, Digest, SealedBatch
from libs.store.errors import LaneLost, StoreConflict, StoreUnavailable, StoreUnsafe
from libs.store.notify import Notifier
from libs.store.pool import AnyConnection, Pool, PooledConnection, map_store_errors

ACQUIRE_S_MAX: Final = 30.0
"""Seconds to wait for a connection of the pool before the database counts as unavailable."""

_OPEN_LANE = """
insert into lanes (lane, family, process, instance) values ($1, $2, $3, $4)
on conflict (lane) do nothing
"""

_LEDGER_ROW = """
insert into ingest_batches
    (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from, times_to, sids)
select lane, $2, $3, $4, $5, $6, $7, $8, $9
from lanes
where lane = $1 and closed_at is null
  and $2 = 1 + coalesce((select max(batch_no) from ingest_batches where lane = $1), 0)
for share of lanes
returning batch_id
"""

_LANE_STATE = """
select lanes.closed_at is not null as closed,
    coalesce((select max(batch_no) from ingest_batches where lane = $1), 0) as last,
    found.batch_id, found.table_names, found.row_counts, found.row_hashes
from lanes left join ingest_batches found on found.lane = $1 and found.batch_no = $2
where lanes.lane = $1
"""

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


class LaneConflict(StoreConflict):
    """A lane's number holds another batch than ours: a second writer uses this lane; stop."""


class Committed(NamedTuple):
    """Where a batch stands, once and for all."""

    lane: UUID
    batch_no: int
    batch_id: int


@dataclass(frozen=True, slots=True)
class LaneState:
    """What the database says of a lane: closed or not, its last committed number, and the batch under one number."""

    closed: bool
    last: int
    batch_id: int | None
    digest: Digest | None


def judge(state: LaneState | None, confirmed: int, digest: Digest) -> int | None:
    """Decide what the database's state means for batch number confirmed + 1 of that digest.

    Args:
        state: of the lane and the number confirmed + 1; None when the database does not know the lane.
        confirmed: the last number this writer knows to be committed.
        digest: of the batch to be written.

    Returns:
        The batch_id when the batch is committed already; None when it must be written.

    Raises:
        LaneLost: the lane is unknown, behind what was confirmed, or closed without this batch.
        LaneConflict: the number holds another batch.
    """
    if state is None:
        raise LaneLost("unknown_lane")
    if state.last < confirmed:
        raise LaneLost("database_went_back", f"last {state.last}, confirmed {confirmed}")
    if state.last > confirmed:
        if state.last == confirmed + 1 and state.digest == digest:
            return state.batch_id
        raise LaneConflict(f"number {confirmed + 1} is taken by another batch (last {state.last})")
    if state.closed:
        raise LaneLost("closed")
    return None


async def checks_sound(conn: AnyConnection) -> None:
    """Refuse a server that may lose what it has confirmed.

    Raises:
        StoreUnsafe: fsync or synchronous_commit is off; the message names the parameter.
    """
    for parameter in ("fsync", "synchronous_commit"):
        with map_store_errors():
            value = await conn.fetchval("select current_setting($1)", parameter)
        if value == "off":
            raise StoreUnsafe(f"{parameter} is off: a confirmed batch could be lost; set it to on")


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
        survivor: the instance whose lanes stay open.

    Raises:
        StoreUnavailable: the database is away, or a commit took longer than the statement time-out.
    """
    with map_store_errors():
        async with conn.transaction(isolation="read_committed"):
            return await _close_lanes(conn, process=process, instance=instance, survivor=survivor)


async def _close_lanes(
    conn: AnyConnection,
    *,
    lane: UUID | None = None,
    process: str | None = None,
    instance: UUID | None = None,
    survivor: UUID | None = None,
) -> list[UUID]:
    # Two statements: the second needs a snapshot taken after the lock was granted, or it would not see the number of
    # the commit it waited for.
    lanes = [
        row["lane"] for row in await conn.fetch(_LOCK_LANES, lane, process, instance, survivor)
    ]
    if lanes:
        await conn.execute(_CLOSE_LANES, lanes)
    return lanes


class LaneWriter:
    """Writes batches of one table family over one lane, each exactly once, on a connection of its own.

    Args of the constructor: a pool of the zone's database; the family; the process's name (`connector-a-0`) and the
    UUID of this start of it; the notifier to tell of commits. Not for concurrent use: one batch after the other.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        family: Family,
        process: str,
        instance: UUID,
        notifier: Notifier | None = None,
    ) -> None:
        self._pool = pool
        self._family = family
        self._process = process
        self._instance = instance
        self._notifier = notifier
        self._conn: PooledConnection | None = None
        self._left: UUID | None = None
        self._opened = False
        self.lane = uuid4()
        self.confirmed = 0

    async def open(self) -> None:
        """Make the lane known to the database; does nothing when it is. After an error: call again.

        Raises:
            StoreUnavailable: the database is away.
            StoreUnsafe: the server may lose commits.
        """
        raise NotImplementedError

    async def write(self, batch: SealedBatch) -> Committed:
        """Commit a batch under the lane's next number, or find that it is committed; opens the lane if need be.

        Raises:
            StoreUnavailable: the database is away, or the commit is in doubt; call again with the same batch.
            LaneLost: this lane cannot go on. Nothing of the batch stands on it, as far as this database shows: write a
                gap, restate the streams, reopen(), and write there what is still held.
            LaneConflict: another batch stands under this number; exit.
            StoreUnsafe: the server may lose commits; exit.
        """
        raise NotImplementedError

    async def reopen(self) -> None:
        """Leave the lane for a new one, numbered from 1; the old one is closed where the database knows it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the lane with its last number and give the connection back.

        Raises:
            StoreUnavailable: the lane could not be closed; its successor or the registry will. The connection is given
                back all the same.
        """
        raise NotImplementedError
