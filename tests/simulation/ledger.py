"""A gatherer's database as its reader sees it: the statements of libs.store.pages and acknowledgements over memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from libs.marketdata.binary import COPY_HEADER, COPY_TRAILER
from libs.store.batches import SCHEMA_VERSION, SealedTable
from libs.store.schema import GATHERER_LEVEL
from tests.simulation.database import Acknowledged, Batch, Lane, MemoryDatabase
from tests.simulation.plan import EPOCH

ANSWER_S_MAX = 0.01
_START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=EPOCH)


def _moment(at: float) -> datetime:
    return _START + timedelta(microseconds=round(at * 1e6))


class LedgerConnection:
    """What a reader uses of an asyncpg connection; it ends when the server goes away or is another."""

    def __init__(self, zone: str, database: MemoryDatabase, chance: Random) -> None:
        self._zone, self._database, self._chance = zone, database, chance
        self._incarnation = database.incarnation
        self._closed = False
        self._batches: dict[int, Batch] = {}

    def is_closed(self) -> bool:
        return self._closed or self._incarnation != self._database.incarnation

    def terminate(self) -> None:
        self._closed = True

    async def close(self, timeout: float = 0) -> None:  # noqa: ASYNC109 - as the driver's
        self._closed = True

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[None]:
        yield

    async def execute(self, query: str, *_: Any) -> str:
        await self._arrive()
        return query

    async def fetchrow(self, query: str, *_: Any) -> Any:
        await self._arrive()
        if "FROM schema_level" in query:
            return {"level": GATHERER_LEVEL, "oldest_code_level": GATHERER_LEVEL}
        if "from gatherer_identity" in query:
            return {"identity": self._database.identity, "zone": self._zone}
        return None

    async def fetchval(self, query: str, *_: Any) -> Any:
        await self._arrive()
        if "max(merge_no)" in query:
            return max((a.merge_no for a in self._database.acknowledged.values()), default=0)
        return None

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        await self._arrive()
        if "ingest_batches i where i.lane = w.lane" in query:
            return self._next_batches(*args)
        if "is_known" in query:
            return list(self._lost(*args))
        if "into lane_acknowledgements" in query:
            return self._acknowledge(zip(*args, strict=True))
        return []

    async def copy_from_query(
        self,
        query: str,
        *,
        output: Callable[[bytes], Awaitable[None]],
        format: str,  # noqa: A002
    ) -> str:
        await self._arrive()
        name, ids = (
            re.search(r"from (\w+) ", query),
            re.search(r"batch_id in \( ([\d,]+) \)", query),
        )
        assert name is not None and ids is not None
        data = [COPY_HEADER]
        for batch_id in map(int, ids[1].split(",")):
            for table in self._batches[batch_id].sealed.tables:
                if table.name == name[1]:
                    data.append(_rows_of(table, batch_id))
        await output(b"".join([*data, COPY_TRAILER]))
        return "COPY"

    async def _arrive(self) -> None:
        await asyncio.sleep(self._chance.random() * ANSWER_S_MAX)
        if self._database.away or self.is_closed():
            self._closed = True
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed")

    def _next_batches(
        self, lanes: Sequence[UUID], cursors: Sequence[int], rows_max: int, ledger_max: int
    ) -> list[dict[str, Any]]:
        cursor_of = dict(zip(lanes, cursors, strict=True))
        wanted = {
            name: lane
            for name, lane in self._database.lanes.items()
            if not lane.is_closed or cursor_of.get(name, 0) < len(lane.batches)
        }
        most = max(4, ledger_max // max(1, len(wanted)))
        queue: list[tuple[int, float, UUID, int, Batch]] = []
        for name, lane in wanted.items():
            cursor = cursor_of.get(name) or 0
            following = enumerate(lane.batches[cursor : cursor + most], 1)
            queue += [(turn, batch.at, name, cursor + turn, batch) for turn, batch in following]
        queue.sort(key=lambda entry: entry[:3])
        chosen: dict[UUID, list[tuple[int, Batch]]] = {name: [] for name in wanted}
        running = 0
        for place, (_, _, name, number, batch) in enumerate(queue):
            running += batch.sealed.rows
            if running <= rows_max or place == 0:
                chosen[name].append((number, batch))
        self._batches = {batch.batch_id: batch for found in chosen.values() for _, batch in found}
        return [
            row
            for name, lane in sorted(wanted.items(), key=lambda item: (item[1].opened_at, item[0]))
            for row in _ledger_rows(
                name, lane, cursor_of.get(name), sorted(chosen[name], key=lambda c: c[0])
            )
        ]

    def _lost(
        self, lanes: Sequence[UUID], cursors: Sequence[int], young: Sequence[bool]
    ) -> Iterable[dict[str, Any]]:
        for name, cursor, is_young in zip(lanes, cursors, young, strict=True):
            lane = self._database.lanes.get(name)
            last = 0 if lane is None else len(lane.batches)
            if last < cursor and (lane is not None or is_young):
                yield {"lane": name, "merged": cursor, "last": last, "is_known": lane is not None}

    def _acknowledge(self, marks: Iterable[tuple[UUID, int, int]]) -> list[dict[str, int]]:
        known, now, found = self._database.acknowledged, asyncio.get_running_loop().time(), []
        for name, batch_no, merge_no in marks:
            there = known.get(name)
            if name in self._database.lanes and (there is None or there.merge_no <= merge_no):
                known[name] = Acknowledged(batch_no, merge_no, now)
                found.append({"merge_no": merge_no})
        return found


def _ledger_rows(
    name: UUID, lane: Lane, cursor: int | None, chosen: Sequence[tuple[int, Batch]]
) -> list[dict[str, Any]]:
    head = {
        "lane": name, "family": lane.family.value, "process": "connector", "instance": name,
        "opened_at": _moment(lane.opened_at), "cursor": cursor, "released": 0, "last": len(lane.batches),
        "closed_at": None if lane.closed_at is None else _moment(lane.closed_at),
        "last_batch_no": len(lane.batches) if lane.is_closed else None,
    }  # fmt: skip
    if not chosen:
        return [head | {"batch_no": None}]
    return [head | _ledger_row(number, batch) for number, batch in chosen]


def _ledger_row(number: int, batch: Batch) -> dict[str, Any]:
    digest, tables = batch.sealed.digest, batch.sealed.tables
    return {
        "batch_no": number, "batch_id": batch.batch_id, "committed_at": _moment(batch.at),
        "schema_version": SCHEMA_VERSION, "table_names": list(digest.table_names),
        "row_counts": list(digest.row_counts), "row_hashes": list(digest.row_hashes),
        "times_from": [t.time_from for t in tables], "times_to": [t.time_to for t in tables], "dropped_at": None,
    }  # fmt: skip


def _rows_of(table: SealedTable, batch_id: int) -> bytes:
    return table.copy_bytes(batch_id)[len(COPY_HEADER) : -len(COPY_TRAILER)]
