"""Lanes: one writer's numbered sequence of batches, each committed exactly once.

A lane is a random UUID of the writer, never a number of the database, so that no restored or emptied database can give
the same name to two contents. Batch n+1 starts only after n is committed; lanes are parallel. One transaction is the
ledger row first (it locks the lane and needs it open, and waits for a commit of the same number that still runs), then
the rows. Whoever loses its connection finds out by asking the ledger: the number is there with our digest (committed),
not there (repeat it), there with another digest (a second writer: stop), or the lane itself is behind (leave it).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from libs.marketdata.tables import Family
from libs.store.batches import SCHEMA_VERSION, Digest, SealedBatch
from libs.store.error_mapping import unfit_is_away
from libs.store.errors import LaneLost, StoreConflict, StoreUnavailable, StoreUnsafe
from libs.store.lane_closing import close_lanes
from libs.store.notify import Notifier
from libs.store.pool import AnyConnection, Pool, PooledConnection, abandon, map_store_errors
from libs.store.schema import insist_on_level

ACQUIRE_S_MAX: Final = 30.0
"""Seconds to wait for a connection of the pool before the database counts as unavailable."""

_DURABILITY = """
select current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit
"""

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


class LaneConflict(StoreConflict):
    """A lane's number holds another batch than ours: a second writer uses this lane; stop."""


@dataclass(frozen=True, slots=True)
class Committed:
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
    with map_store_errors():
        row = await conn.fetchrow(_DURABILITY)
    assert row is not None
    for parameter, value in row.items():
        if value == "off":
            raise StoreUnsafe(f"{parameter} is off: a confirmed batch could be lost; set it to on")


class LaneWriter:
    """Writes batches of one table family over one lane, each exactly once, on a connection of its own.

    Args of the constructor: a pool of the zone's database; the family; the process's name (`connector-a-0`) and the
    UUID of this start of it; the notifier to tell of commits. Not for concurrent use: one batch after the other.

    lane: the lane written to. confirmed: the last number known to be committed, 0 for none.
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
        self._owner = (family.value, process, instance)
        self._notifier = notifier
        self._conn: PooledConnection | None = None
        self._left: UUID | None = None
        self._opened = False
        self._in_doubt: Digest | None = None
        self.lane = uuid4()
        self.confirmed = 0

    async def open(self) -> None:
        """Make the lane known to the database; does nothing when it is. After StoreUnavailable: call again.

        Raises:
            StoreUnavailable: the database is away.
            StoreUnsafe: the server may lose commits.
        """
        async with self._connection():
            pass

    async def write(self, batch: SealedBatch) -> Committed:
        """Commit a batch under the lane's next number, or find it committed already; opens the lane if need be.

        Cancellation leaves the batch in doubt, like StoreUnavailable.

        Raises:
            StoreUnavailable: the database is away or does not fit, or the commit is in doubt; call again with the same batch.
            LaneLost: this lane cannot go on and does not hold this batch. Write a gap, reopen(), restate the
                streams, and write there what is still held.
            LaneConflict: another batch stands under this number, or was offered while the last one is in doubt; exit.
            StoreUnsafe: the server may lose commits; exit.
        """
        digest = batch.digest
        if self._in_doubt is not None and self._in_doubt != digest:
            raise LaneConflict(
                f"another batch offered while number {self.confirmed + 1} is in doubt"
            )
        async with self._connection() as conn:
            # The ledger statement itself compares last committed with confirmed, also after a lost connection.
            batch_id = await self._commit(conn, batch, digest)
            if batch_id is None:
                batch_id = await self._find(conn, digest)
            if batch_id is None:
                raise StoreUnavailable(f"number {self.confirmed + 1} was refused and is not there")
        self.confirmed += 1
        self._in_doubt = None
        if self._notifier is not None:
            self._notifier.poke()
        return Committed(self.lane, self.confirmed, batch_id)

    async def reopen(self) -> None:
        """Leave the lane for a new one, numbered from 1, and close the old one where the database knows it.

        What is in doubt may then be committed on both: doubles are legal. After StoreUnavailable: call again.

        Raises:
            StoreUnavailable, StoreUnsafe: as open().
        """
        if self._opened:
            self._left, self.lane = self.lane, uuid4()
            self._opened, self.confirmed, self._in_doubt = False, 0, None
        await self.open()

    async def close(self) -> None:
        """Close the lane with its last number and give the connection back.

        Raises:
            StoreUnavailable: the lane could not be closed; its successor or the registry will. The connection is given
                back all the same.
        """
        if self._opened:
            async with self._connection() as conn, conn.transaction():
                await close_lanes(conn, lane=self.lane)
        kept, self._conn = self._conn, None
        if kept is not None:
            with map_store_errors():
                await self._pool.release(kept)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PooledConnection]:
        """Lend the writer's connection, with the lane open; whatever goes wrong with it ends it."""
        with unfit_is_away(), map_store_errors():
            kept, self._conn = self._conn, None
            conn = kept or await self._pool.acquire(timeout=ACQUIRE_S_MAX)
            try:
                if kept is None:
                    await checks_sound(conn)
                if not self._opened:
                    await self._open_lane(conn)
                yield conn
                self._conn = conn
            finally:
                if self._conn is None:
                    # At once and without waiting, so that a cancellation is not held up: the server finds out.
                    abandon(conn)

    async def _open_lane(self, conn: PooledConnection) -> None:
        await insist_on_level(conn, "gatherer")
        async with conn.transaction(isolation="read_committed"):
            if self._left is not None:
                await close_lanes(conn, lane=self._left)
            await conn.execute(_OPEN_LANE, self.lane, *self._owner)
        self._opened, self._left = True, None

    async def _find(self, conn: PooledConnection, digest: Digest) -> int | None:
        """Judge the lane and the next number; the batch_id when that number is this batch."""
        row = await conn.fetchrow(_LANE_STATE, self.lane, self.confirmed + 1)
        state = None
        if row is not None:
            there = row["batch_id"] is not None
            found = (tuple(row[name]) for name in ("table_names", "row_counts", "row_hashes"))
            state = LaneState(
                row["closed"], row["last"], row["batch_id"], Digest(*found) if there else None
            )
        return judge(state, self.confirmed, digest)

    async def _commit(
        self, conn: PooledConnection, batch: SealedBatch, digest: Digest
    ) -> int | None:
        """Commit ledger row and rows; None when the ledger does not take this number."""
        transaction = conn.transaction(isolation="read_committed")
        await transaction.start()
        batch_id = await self._insert_ledger_row(conn, batch, digest)
        if batch_id is None:
            await transaction.rollback()
            return None
        for table in batch.tables:
            # A memoryview, because the driver takes bytes for the path of a file; its stubs do not know of buffers.
            await conn.copy_to_table(
                table.name,
                source=memoryview(table.copy_bytes(batch_id)),  # type: ignore[arg-type]
                columns=table.columns,
                format="binary",
            )
        self._in_doubt = digest
        await transaction.commit()
        return batch_id

    async def _insert_ledger_row(
        self, conn: PooledConnection, batch: SealedBatch, digest: Digest
    ) -> int | None:
        try:
            batch_id: int | None = await conn.fetchval(
                _LEDGER_ROW,
                self.lane,
                self.confirmed + 1,
                SCHEMA_VERSION,
                digest.table_names,
                digest.row_counts,
                digest.row_hashes,
                [table.time_from for table in batch.tables],
                [table.time_to for table in batch.tables],
                batch.sids_json,
            )
        except asyncpg.UniqueViolationError:
            # A commit of the same number was still running when the statement began, and then succeeded.
            return None
        return batch_id
