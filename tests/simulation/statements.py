"""What the writer's statements mean, told apart by their text and done on tables in memory.

A table that nobody here looks at is empty: reading it finds nothing, writing to it does nothing.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from libs.marketdata.binary import COPY_HEADER, COPY_TRAILER, RowCodec
from libs.marketdata.rows import ROW_TYPES
from libs.marketdata.tables import GATHERER_TABLES, production_columns
from libs.marketdata.units import SECOND
from libs.store.merge_transaction import CONTENT_TABLES, Segment
from libs.store.schema import PRODUCTION_LEVEL
from tests.simulation.merged import Kept, content_of, key_of
from tests.simulation.server import Changes, Gatherer, ProductionServer

_NO_LANE = UUID(int=0)
_codecs: dict[str, RowCodec[Any]] = {}

Row = tuple[Any, Segment, int]
"""A row of production, whence it came, and its merge_no."""


class Statements:
    """Carries statements out within one transaction.

    Attributes:
        staged: rows in staging tables, by table.
    """

    def __init__(self, server: ProductionServer, changes: Changes) -> None:
        self._server = server
        self._changes = changes
        self.staged: dict[str, list[Row]] = {}

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def ask_row(self, query: str, args: Sequence[Any]) -> Any:
        """A statement that answers with a row; the lease's row is locked."""
        server = self._server
        if "FROM writer_lease FOR UPDATE" in query:
            lease = server.lease
            return lease.epoch, lease.holder, lease.merge_no
        if "SET epoch = epoch + 1" in query:
            return self._take_lease(*args)
        if "FROM gatherers WHERE identity" in query:
            found = server.gatherers.get(args[0])
            return None if found is None else tuple(found)
        if "FROM schema_level" in query:
            return {"level": PRODUCTION_LEVEL, "oldest_code_level": PRODUCTION_LEVEL}
        return None

    def ask_value(self, query: str, args: Sequence[Any]) -> Any:
        """A statement that answers with a value."""
        gatherers = self._server.gatherers
        if "INTO merges" in query:
            self._changes.set(self._server.merges, args[0], self._now)
            return round(self._now * SECOND)
        if "count(*) FROM gatherers" in query:
            return sum(found.zone == args[0] for found in gatherers.values())
        if "INTO gatherers" in query:
            number = 1 + max((found.number for found in gatherers.values()), default=0)
            self._changes.set(gatherers, args[0], Gatherer(number, args[1]))
            return number
        if "SELECT status FROM gatherers" in query:
            return next((g.status for g in gatherers.values() if g.number == args[0]), None)
        return None

    def ask(self, query: str, args: Sequence[Any]) -> list[Any]:
        """A statement that answers with rows."""
        if "FROM stage_" in query:
            return self._present(query, *args)
        return self._cursors(args) if "FROM sync_cursors" in query else []

    def add(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows beside those of facts."""
        server = self._server
        if "INTO coverage" in query:
            found = [(no, table, facts) for no, table, _, _, is_late, facts in rows if not is_late]
            self._changes.add(server.covered, found)
        elif "INTO operational_events" in query:
            self._changes.add(server.events, [(self._now, *row) for row in rows])

    def write(self, query: str, args: Sequence[Any]) -> str:
        server = self._server
        if "UPDATE writer_lease SET merge_no" in query:
            self._changes.set_lease(
                merge_no=args[0], expires_at=self._now + args[1].total_seconds()
            )
        elif "UPDATE writer_lease SET expires_at" in query:
            self._changes.set_lease(
                expires_at=self._now + (args[0].total_seconds() if args else 0.0)
            )
        elif "INTO sync_cursors" in query:
            for gatherer, lane, batch_no, _ in zip(*args, strict=True):
                known = server.cursors.get((gatherer, lane), (0, 0.0))[0]
                self._changes.set(
                    server.cursors, (gatherer, lane), (max(known, batch_no), self._now)
                )
        elif "INTO merges" in query:
            self._changes.set(server.merges, args[0], self._now)
        elif "UPDATE gatherers SET" in query:
            self._update_gatherers(query, args)
        elif "DELETE FROM stage_trades" in query:
            gone = set(args[0])
            self.staged["trades"] = [s for s in self.staged["trades"] if s[0].trade_id not in gone]
        elif found := re.match(r"INSERT INTO (\w+) .* FROM stage_", query):
            table = found[1]
            return f"INSERT 0 {self.insert(table, self.staged[table])}"
        return "OK 0"

    def _update_gatherers(self, query: str, args: Sequence[Any]) -> None:
        for identity, known in list(self._server.gatherers.items()):
            if "'replaced'" in query:
                if known.zone == args[0] and known.number != args[1] and known.status == "ok":
                    self._changes.set(
                        self._server.gatherers, identity, known._replace(status="replaced")
                    )
            elif known.number == args[0]:
                status = "quarantined" if "'quarantined'" in query else "ok"
                detail = args[1] if len(args) > 1 else ""
                self._changes.set(
                    self._server.gatherers, identity, known._replace(status=status, detail=detail)
                )

    def _take_lease(self, holder: UUID, ttl: Any, floor: int, former: UUID | None) -> Any:
        lease = self._server.lease
        if lease.holder not in (None, former) and lease.expires_at >= self._now:
            return None
        merge_no = max(lease.merge_no, floor, *self._server.merges, 0)
        expires_at = self._now + ttl.total_seconds()
        self._changes.set_lease(
            epoch=lease.epoch + 1, holder=holder, merge_no=merge_no, expires_at=expires_at
        )
        return lease.epoch + 1, merge_no

    def _cursors(self, args: Sequence[Any]) -> list[Any]:
        cursors = self._server.cursors
        if not args:
            return [(gatherer, lane, no) for (gatherer, lane), (no, _) in cursors.items()]
        told = (
            e[0] for e in self._server.events if e[1] == "gatherer_went_back" and e[2] == args[0]
        )
        last = max(told, default=-1.0)
        return [
            {"lane": lane, "batch_no": no, "age_s": self._now - at, "is_untold": at > last}
            for (gatherer, lane), (no, at) in cursors.items()
            if gatherer == args[0]
        ]

    def insert(self, name: str, rows: Sequence[tuple[Any, Segment, int]]) -> int:
        kept = self._server.tables.tables[name]
        before = len(kept)
        for row, segment, merge_no in rows:
            key = key_of(GATHERER_TABLES[name], row, segment)
            if key not in kept:
                self._changes.set(kept, key, Kept(row, segment, merge_no))
        return len(kept) - before

    def _present(self, query: str, merge_no: int) -> list[Any]:
        found = re.search(r"FROM stage_(\w+)", query)
        assert found is not None
        name = found[1]
        kept = self._server.tables.tables[name]
        assert name in CONTENT_TABLES
        if name == "trades":
            there = [
                (row, kept[row.trade_id].row)
                for row, _, _ in self.staged[name]
                if row.trade_id in kept
            ]
            return [(row.trade_id, *content_of(old), *content_of(row)) for row, old in there]
        # Asked after the insertion, whose rows bear our own number.
        keys = (
            key_of(GATHERER_TABLES[name], row, segment) for row, segment, _ in self.staged[name]
        )
        return [key for key in keys if kept[key].merge_no < merge_no]


def read_rows(name: str, data: bytes) -> list[Row]:
    """Read a COPY into production: the row, whence it came, and its merge_no."""
    table = GATHERER_TABLES[name]
    if name not in _codecs:
        _codecs[name] = RowCodec(production_columns(table), tuple)
    assert data.startswith(COPY_HEADER)
    make = ROW_TYPES[name]._make  # type: ignore[attr-defined]
    offset, width, found = len(COPY_HEADER), len(table.columns), []
    while data[offset : offset + 2] != COPY_TRAILER:
        values, offset = _codecs[name].decode(data, offset + 2)
        added = values[width:]
        lane, batch_no = added[:2] if table.by_batch else (_NO_LANE, 0)
        segment = Segment(added[-2], lane, batch_no, ())
        found.append((make(values[:width]), segment, added[-1]))
    return found
