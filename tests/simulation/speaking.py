"""A connection to production's server in memory: what the writer uses of the driver, with transactions, locks and ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from tests.simulation.server import Changes, ProductionServer
from tests.simulation.statements import Statements, read_rows

STATEMENT_S_MAX = 0.004
"""How long a statement takes at most, seconds: long enough to die in."""


class ProductionConnection:
    """One connection, and at most one transaction on it.

    Every statement takes its time, and may find that the connection ended meanwhile; what was not committed is undone.
    """

    def __init__(self, server: ProductionServer) -> None:
        self._server = server
        self._incarnation = server.incarnation
        self._closed = False
        self._changes = Changes(server)
        self._statements = Statements(server, self._changes)
        self._savepoint = 0
        self._lock: asyncio.Lock | None = None

    def is_closed(self) -> bool:
        return self._closed or self._incarnation != self._server.incarnation

    def terminate(self) -> None:
        self._end(is_committed=False)
        self._closed = True

    async def close(self, timeout: float = 0) -> None:  # noqa: ASYNC109 - as the driver's
        self.terminate()

    async def execute(self, query: str, *args: Any) -> str:
        await self._arrive()
        if query == "COMMIT":
            self._commit()
        elif query == "ROLLBACK":
            self._end(is_committed=False)
        elif query.startswith("ROLLBACK TO"):
            self._changes.roll_back(self._savepoint)
        elif query.startswith("SAVEPOINT"):
            self._savepoint = len(self._changes)
        else:
            return self._statements.write(query, args)
        return query

    async def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._arrive()
        self._statements.add(query, rows)

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        await self._arrive()
        return self._statements.ask(query, args)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        await self._arrive()
        if "writer_lease" in query:
            await self._take_lock()
        return self._statements.ask_row(query, args)

    async def fetchval(self, query: str, *args: Any, timeout: float = 0) -> Any:  # noqa: ASYNC109
        await self._arrive()
        return self._statements.ask_value(query, args)

    async def copy_to_table(self, name: str, *, source: AsyncIterator[bytes], **_: Any) -> str:
        await self._arrive()
        data = b"".join([part async for part in source])
        table = name.removeprefix("stage_")
        rows = read_rows(table, data)
        if name != table:
            self._statements.staged[table] = rows
        elif self._statements.insert(table, rows) < len(rows):
            raise asyncpg.UniqueViolationError(f"duplicate key in {name}")
        return f"COPY {len(rows)}"

    async def _arrive(self) -> None:
        """A statement is under way, and so may be the end of its connection."""
        await asyncio.sleep(self._server.chance.random() * STATEMENT_S_MAX)
        self._check()

    def _check(self) -> None:
        if self._server.away or self.is_closed():
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed")

    async def _take_lock(self) -> None:
        """Lock the lease's row until the transaction ends."""
        if self._lock is None:
            lock = self._server.lock
            await lock.acquire()
            self._lock = lock
            self._check()

    def _commit(self) -> None:
        server = self._server
        is_cut = server.doubt_share > 0 and server.chance.random() < server.doubt_share
        self._end(is_committed=not is_cut or server.chance.random() < 0.5)
        if is_cut:
            self._closed = True
            raise asyncpg.ConnectionDoesNotExistError("cut in COMMIT")

    def _end(self, *, is_committed: bool) -> None:
        if is_committed and len(self._changes):
            self._server.keep()
            self._changes.clear()
        self._changes.roll_back()
        self._savepoint = 0
        self._statements.staged.clear()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
