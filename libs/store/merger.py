"""The one numbered writer of production: rows, cursors and coverage in one transaction, n+1 after n.

Every transaction first locks the lease row and checks that epoch and holder are its own AND that the last merge_no is
the one it committed last. Otherwise it writes nothing: the caller forgets cursors and identities, takes over again and
reads the cursors again. So a second writer, a commit in doubt and a restored production are one case.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from libs.store import merge_sql as sql
from libs.store.dropped import insist_open
from libs.store.errors import StoreUnavailable
from libs.store.merge_admission import admit, forget_cursors
from libs.store.merge_errors import HistoryChanged, RowsRefused, WriterFenced
from libs.store.merge_records import record_events, write_records
from libs.store.merge_rows import RowInserter
from libs.store.merge_transaction import (
    Admission,
    EventRow,
    Merged,
    MergeTransaction,
    Standing,
)
from libs.store.pool import Connection, Target, connect, map_store_errors
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

APPLICATION: Final = "kalshi-data-merger"
RELEASE_S_MAX: Final = 5.0

_DATA_ERRORS: Final = (
    asyncpg.DataError,
    asyncpg.CheckViolationError,
    asyncpg.NotNullViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""What the server says of rows it cannot hold, whoever sends them: a value out of range, a key too long for an index."""


class ProductionWriter:
    """Writes production while it holds the lease; one transaction at a time on one connection.

    Args of the constructor:
        target: production's writer endpoint.
        ttl_s: seconds a lease lasts without a transaction or renewal.
        timeout_s: seconds after which a transaction is given up and its commit is in doubt.
    """

    def __init__(self, target: Target, *, ttl_s: float = 10.0, timeout_s: float = 120.0) -> None:
        self._target = target
        self._ttl = timedelta(seconds=ttl_s)
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._conn: Connection | None = None
        self._rows: RowInserter | None = None
        self._holder: UUID | None = None
        self.epoch = 0
        self.merge_no = 0
        """The number this writer committed last."""
        self._tried = 0

    async def take_over(self, merge_no_floor: int = 0) -> Standing | None:
        """Take the lease under a new holder and read where production stands; None while another writer has it.

        Args:
            merge_no_floor: the largest merge_no any gatherer shows; numbers go on above it.

        Raises:
            StoreUnavailable: production is away.
        """
        async with self._turn:
            await self._disconnect()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._take_over(merge_no_floor)
            except (StoreUnavailable, TimeoutError) as error:
                await self._disconnect()
                raise StoreUnavailable(str(error) or "production does not answer") from error
            except BaseException:
                # Cancelled, perhaps: an open transaction would keep the lease row locked for our successor.
                await self._disconnect()
                raise

    async def merge(self, transaction: MergeTransaction) -> Merged:
        """Commit one transaction, all of it or nothing, and return what it inserted.

        Raises:
            WriterFenced: another writer took over. HistoryChanged: production is not as this writer left it, or it
                is unknown whether this transaction was committed. In both cases: forget, take over, read again.
            RowsRefused: some row cannot be merged; nothing was written, and this writer may go on with others.
        """
        async with self._fenced() as conn:
            merge_no = self._tried = max(self.merge_no, transaction.merge_no_floor) + 1
            try:
                merged = await self._fill(conn, transaction, merge_no)
            except RowsRefused as error:
                refused = error
                await conn.execute("ROLLBACK")
                self._rows = RowInserter(conn)
            else:
                await conn.execute(sql.COMMIT_LEASE, merge_no, self._ttl)
                await conn.execute("COMMIT")
                self.merge_no = merge_no
                return merged
        raise refused

    async def renew(self) -> None:
        """Prolong the lease while there is nothing to merge. Raises as merge does."""
        async with self._fenced() as conn:
            await conn.execute(sql.RENEW_LEASE, self._ttl)
            await conn.execute("COMMIT")

    async def admit(self, identity: UUID, zone: str) -> Admission:
        """Return what production knows of a gatherer; a new one is admitted at once, with an event row.

        Raises as merge does.
        """
        async with self._fenced() as conn:
            admission = await admit(conn, identity, zone)
            await conn.execute("COMMIT")
            return admission

    async def forget_cursors(self, gatherer: int, lanes: Collection[UUID]) -> None:
        """Forget how far lanes were merged that the gatherer deleted long ago. Raises as merge does."""
        async with self._fenced() as conn:
            await forget_cursors(conn, gatherer, lanes)
            await conn.execute("COMMIT")

    async def status_of(self, gatherer: int) -> str | None:
        """Return a gatherer's status without holding the lease's row, for those who ask every second.

        Raises:
            HistoryChanged: production does not answer.
        """
        async with self._turn:
            if self._conn is None:
                raise HistoryChanged("no connection to production")
            try:
                with map_store_errors():
                    found = await self._conn.fetchval(
                        sql.STATUS_OF, gatherer, timeout=self._timeout_s
                    )
            except StoreUnavailable as error:
                await self._disconnect()
                raise HistoryChanged(f"production does not answer: {error}") from error
        return None if found is None else str(found)

    async def quarantine(self, gatherer: int, detail: str) -> None:
        """Mark a gatherer as unsound, with an event row; it is not read until re-admitted. Raises as merge does."""
        async with self._fenced() as conn:
            await conn.execute(sql.QUARANTINE, gatherer, detail)
            await record_events(conn, [EventRow("gatherer_quarantined", gatherer, detail)])
            await conn.execute("COMMIT")

    async def record(self, event: EventRow) -> None:
        """Record one event. Raises as merge does."""
        async with self._fenced() as conn:
            await record_events(conn, [event])
            await conn.execute("COMMIT")

    async def copy_cursors(self, every_s: float, keep_s: float) -> bool:
        """Copy all cursors if the newest copy is older than every_s; forget those superseded keep_s ago.

        Returns whether a copy was made. Raises as merge does.
        """
        async with self._fenced() as conn:
            age = await conn.fetchval(sql.LAST_COPY)
            is_due = age is None or age >= every_s
            if is_due:
                await conn.execute(sql.COPY_CURSORS, self.merge_no)
                await conn.execute(sql.FORGET_COPIES, timedelta(seconds=keep_s))
            await conn.execute("COMMIT")
            return is_due

    async def releasable(self, age_s: float) -> dict[int, dict[UUID, tuple[int, int]]]:
        """Return gatherer -> lane -> (batch_no, merge_no) of the newest copy of cursors at least age_s old.

        It is what production's present history merged that long ago. Raises as merge does.
        """
        async with self._fenced() as conn:
            records = await conn.fetch(sql.RELEASABLE, timedelta(seconds=age_s))
            await conn.execute("COMMIT")
        found: dict[int, dict[UUID, tuple[int, int]]] = {}
        for gatherer, lane, batch_no, merge_no in records:
            found.setdefault(gatherer, {})[lane] = (batch_no, merge_no)
        return found

    async def release(self) -> None:
        """Give the lease up, so that another writer need not wait for its end, and disconnect; never raises."""
        try:
            async with asyncio.timeout(RELEASE_S_MAX), self._fenced() as conn:
                await conn.execute(sql.RELEASE_LEASE)
                await conn.execute("COMMIT")
        except (WriterFenced, HistoryChanged, TimeoutError) as error:
            # Whoever holds it now needs nothing of us, and else it ends by itself: a successor waits that long.
            log.info("writer_lease_not_released", error=repr(error))
        await self.close()

    async def close(self) -> None:
        """Disconnect and leave the lease to its end."""
        await self._disconnect()

    async def _fill(self, conn: Connection, transaction: MergeTransaction, merge_no: int) -> Merged:
        """Write all that the transaction carries, short of its commit. Raises RowsRefused."""
        assert self._rows is not None
        try:
            merged = await self._rows.insert(transaction.rows, merge_no)
            await insist_open(conn, transaction.rows)
            merged = replace(merged, conflicts=[*merged.conflicts, *transaction.judge(merged.kept)])
            await write_records(conn, transaction, merged)
        except _DATA_ERRORS as error:
            raise RowsRefused(f"refused: {type(error).__name__}: {error}") from error
        return merged

    async def _take_over(self, merge_no_floor: int) -> Standing | None:
        conn = await self._connect()
        holder = uuid4()
        # A number that was tried may have been read by somebody before production went back.
        merge_no_floor = max(merge_no_floor, self._tried)
        with map_store_errors():
            await conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            await conn.execute(sql.FIRST_LEASE)
            taken = await conn.fetchrow(
                sql.TAKE_LEASE, holder, self._ttl, merge_no_floor, self._holder
            )
            if taken is None:
                await conn.execute("ROLLBACK")
                return None
            cursors: dict[int, dict[UUID, int]] = {}
            for gatherer, lane, batch_no in await conn.fetch(sql.READ_CURSORS):
                cursors.setdefault(gatherer, {})[lane] = batch_no
            await conn.execute("COMMIT")
        self._holder = holder
        self.epoch, self.merge_no = taken
        return Standing(self.epoch, self.merge_no, cursors)

    @asynccontextmanager
    async def _fenced(self) -> AsyncIterator[Connection]:
        """Open a transaction that holds the lease; the body ends with COMMIT. Whatever fails leaves no connection."""
        async with self._turn:
            if self._conn is None:
                raise HistoryChanged("no connection to production")
            try:
                async with asyncio.timeout(self._timeout_s):
                    with map_store_errors():
                        await self._conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                        await self._check(self._conn)
                        yield self._conn
            except (StoreUnavailable, TimeoutError) as error:
                await self._disconnect()
                raise HistoryChanged(f"commit in doubt: {error!r}") from error
            except BaseException:
                await self._disconnect()
                raise

    async def _check(self, conn: Connection) -> None:
        row = await conn.fetchrow(sql.LOCK_LEASE)
        if row is None:
            raise HistoryChanged("production has no writer_lease row")
        epoch, holder, merge_no = row
        if epoch != self.epoch or holder != self._holder:
            raise WriterFenced(f"epoch {epoch} holds production, ours was {self.epoch}")
        if merge_no != self.merge_no:
            raise HistoryChanged(f"merge_no is {merge_no}, ours was {self.merge_no}")

    async def _connect(self) -> Connection:
        conn = await self._stack.enter_async_context(connect(self._target, APPLICATION))
        with map_store_errors():
            # A server must notice that we are gone, or its transaction would keep the lease row locked.
            await conn.execute("SET client_connection_check_interval = '2s'")
            await conn.execute("SET idle_in_transaction_session_timeout = '30s'")
        self._conn, self._rows = conn, RowInserter(conn)
        return conn

    async def _disconnect(self) -> None:
        """End the connection at once; a transaction on it is rolled back by the server unless it was committed."""
        if self._conn is not None:
            self._conn.terminate()
        self._conn = self._rows = None
        await self._stack.aclose()
