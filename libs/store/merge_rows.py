"""Rows of a merge transaction on their way into production's tables.

What the in-memory identities let through is new nearly always, so it is copied straight into its table, and only when a
unique key objects is the attempt rolled back to its savepoint and the rows go through a staging table. Tables that
meet copies as a rule (trades by trade_id alone, market_versions from every zone) are staged at once.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import asyncpg

from libs.store.errors import StoreUnavailable
from libs.store.merge_sql import copy_bytes, statements
from libs.store.merge_transaction import (
    TRADE_CONTENT,
    ConflictRow,
    Content,
    Identity,
    Merged,
    Segment,
    trade_conflict,
)
from libs.store.pool import Connection

ALWAYS_STAGED: Final = frozenset({"trades", "market_versions"})
DIRECT_AFTER: Final = 2
"""Staged transactions without a copy until a table is trusted to be copied into directly."""
STAGED_AFTER_COPY: Final = 20
"""Transactions a table is staged for after a copy was met."""
CHUNK_BYTES: Final = 1 << 20


class RowInserter:
    """Inserts rows on one connection, and remembers by table which way is the cheaper."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._stages: set[str] = set()
        self._staged_for: dict[str, int] = {}

    async def insert(self, rows: Mapping[str, Sequence[Segment]], merge_no: int) -> Merged:
        """Insert inside the caller's transaction; a row whose key is there already is left out, exactly counted."""
        inserted: dict[str, int] = {}
        present: dict[str, Sequence[Identity]] = {}
        conflicts: list[ConflictRow] = []
        kept: dict[Identity, Content] = {}
        direct = [name for name in rows if self._is_direct(name)]
        if direct:
            inserted |= await self._insert_directly(direct, rows, merge_no)
        for name, segments in rows.items():
            if name in inserted:
                continue
            found = await self._stage(name, segments, merge_no)
            if name == "trades":
                kept = await self._set_known_trades_aside(merge_no, conflicts)
                present[name] = list(kept)
            inserted[name] = _count(await self._conn.execute(statements(name).insert))
            if name != "trades" and inserted[name] < found:
                present[name] = await self._present(name, merge_no)
            self._learn(name, copies=found - inserted[name])
        return Merged(merge_no, inserted, present, conflicts, kept)

    def _is_direct(self, name: str) -> bool:
        return name not in ALWAYS_STAGED and self._staged_for.get(name, DIRECT_AFTER) <= 0

    def _learn(self, name: str, copies: int) -> None:
        left = self._staged_for.get(name, DIRECT_AFTER) - 1
        self._staged_for[name] = STAGED_AFTER_COPY if copies else left

    async def _insert_directly(
        self, names: Iterable[str], rows: Mapping[str, Sequence[Segment]], merge_no: int
    ) -> dict[str, int]:
        """Copy into the tables; empty when a key objected and nothing of it stands."""
        inserted, name = {}, ""
        await self._conn.execute("SAVEPOINT direct")
        try:
            for name in names:
                columns, data = statements(name).columns, copy_bytes(name, rows[name], merge_no)
                inserted[name] = await self._copy(name, columns, data)
        except asyncpg.UniqueViolationError:
            self._staged_for[name] = STAGED_AFTER_COPY
            await self._conn.execute("ROLLBACK TO SAVEPOINT direct")
            inserted = {}
        await self._conn.execute("RELEASE SAVEPOINT direct")
        return inserted

    async def _stage(self, name: str, segments: Sequence[Segment], merge_no: int) -> int:
        sql = statements(name)
        if name not in self._stages:
            await self._conn.execute(sql.create_stage)
            self._stages.add(name)
        return await self._copy(sql.stage, sql.columns, copy_bytes(name, segments, merge_no))

    async def _copy(self, table: str, columns: Sequence[str], data: bytes) -> int:
        if self._conn.is_closed():
            # The driver's COPY does not look, and fails on a closed connection as if the mistake were ours.
            raise StoreUnavailable("the connection to production was closed")
        return _count(
            await self._conn.copy_to_table(
                table, source=_chunks(data), columns=columns, format="binary"
            )
        )

    async def _present(self, name: str, merge_no: int) -> Sequence[Identity]:
        query = statements(name).present
        if query is None:
            return ()
        return [tuple(record) for record in await self._conn.fetch(query, merge_no)]

    async def _set_known_trades_aside(
        self, merge_no: int, conflicts: list[ConflictRow]
    ) -> dict[Identity, Content]:
        query = statements("trades").present
        assert query is not None
        width, known = len(TRADE_CONTENT), {}
        for trade_id, *contents in await self._conn.fetch(query, merge_no):
            known[trade_id] = kept = tuple(contents[:width])
            refused = tuple(contents[width:])
            if kept != refused:
                conflicts.append(trade_conflict(trade_id, kept, refused))
        if known:
            delete = "DELETE FROM stage_trades WHERE trade_id = ANY($1)"
            await self._conn.execute(delete, list(known))
        return known


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def _count(status: str) -> int:
    """Read the row count of a command's completion tag."""
    return int(status.rpartition(" ")[2])
