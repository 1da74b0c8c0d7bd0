"""Production's server in memory: what the deduplicator's writer keeps there, and how it goes back to what it was."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

from tests.simulation.merged import Production


class Lease(NamedTuple):
    epoch: int = 0
    holder: UUID | None = None
    expires_at: float = 0.0
    merge_no: int = 0


class Gatherer(NamedTuple):
    number: int
    zone: str
    status: str = "ok"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a restore goes back to; rows go by their merge_no."""

    at: float
    lease: Lease
    cursors: dict[tuple[int, UUID], tuple[int, float]]
    gatherers: dict[UUID, Gatherer]
    events: int


@dataclass(slots=True)
class ProductionServer:
    """See the module.

    Attributes:
        away: nothing is answered while it is above 0. doubt_share: share of COMMITs whose answer is lost, 0..1; half of
            them are carried out. covered: facts that coverage counts, by (merge_no, table).
        lock: of the lease's row. open: what transactions changed that are not committed.
        cursors: (gatherer, lane) -> (batch_no, when). events: (at, kind, gatherer, detail).
    """

    chance: Random
    tables: Production = field(default_factory=Production)
    away: int = 0
    doubt_share: float = 0.0
    lease: Lease = field(default_factory=Lease)
    cursors: dict[tuple[int, UUID], tuple[int, float]] = field(default_factory=dict)
    gatherers: dict[UUID, Gatherer] = field(default_factory=dict)
    events: list[tuple[float, str, int | None, str]] = field(default_factory=list)
    merges: dict[int, float] = field(default_factory=dict)
    covered: list[tuple[int, str, int]] = field(default_factory=list)
    incarnation: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    open: "WeakSet[Changes]" = field(default_factory=WeakSet)
    _past: list[_Moment] = field(default_factory=list)

    def rows(self, table: str) -> list[Any]:
        """Every row of a table."""
        return self.tables.rows(table)

    def keep(self) -> None:
        """Note what a restore to this moment would find."""
        now = asyncio.get_running_loop().time()
        self._past.append(
            _Moment(now, self.lease, dict(self.cursors), dict(self.gatherers), len(self.events))
        )

    def cut(self) -> None:
        """End every connection and what they had not committed."""
        self.incarnation += 1
        self.lock = asyncio.Lock()
        for changes in self.open:
            changes.roll_back()

    def go_back(self, to: float) -> None:
        """Become what it was at `to`, the world's seconds, as a restore does."""
        self.cut()
        while self._past and self._past[-1].at > to:
            self._past.pop()
        then = self._past[-1] if self._past else _Moment(0.0, Lease(), {}, {}, 0)
        self.lease, self.cursors, self.gatherers = (
            then.lease,
            dict(then.cursors),
            dict(then.gatherers),
        )
        del self.events[then.events :]
        last = then.lease.merge_no
        self.merges = {no: at for no, at in self.merges.items() if no <= last}
        self.covered = [row for row in self.covered if row[0] <= last]
        for name, rows in self.tables.tables.items():
            self.tables.tables[name] = {
                k: kept for k, kept in rows.items() if kept.merge_no <= last
            }


class Changes:
    """What an open transaction did to a server, so that it can be undone."""

    def __init__(self, server: ProductionServer) -> None:
        self._server = server
        server.open.add(self)
        self._undo: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._undo)

    def set(self, kept: dict[Any, Any], key: Any, value: Any) -> None:
        """Set a row of a table."""
        if key in kept:
            self._undo.append(partial(kept.__setitem__, key, kept[key]))
        else:
            self._undo.append(partial(kept.pop, key))
        kept[key] = value

    def add(self, kept: list[Any], rows: list[Any]) -> None:
        """Append rows to a table without a key."""
        if rows:
            self._undo.append(partial(kept.__delitem__, slice(-len(rows), None)))
            kept += rows

    def set_lease(self, **changes: Any) -> None:
        """Change the lease."""
        self._undo.append(partial(setattr, self._server, "lease", self._server.lease))
        self._server.lease = self._server.lease._replace(**changes)

    def roll_back(self, to: int = 0) -> None:
        """Undo all but the first so many."""
        while len(self) > to:
            self._undo.pop()()

    def clear(self) -> None:
        self._undo.clear()
