"""A gatherer's database in memory: lanes whose commits take time, and a server that is away, in doubt or goes back.

What a writer is told follows from the real rule (libs.store.lanes.judge); only the server is made up.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, NamedTuple, cast
from uuid import UUID

from libs.marketdata.binary import codec
from libs.marketdata.tables import Family
from libs.store.batches import SealedBatch
from libs.store.errors import StoreUnavailable
from libs.store.lanes import Committed, LaneState, LaneWriter, judge

COMMIT_S = (0.002, 0.03)
"""How long a commit takes, seconds, from and to."""
REFUSED_S = 0.1
"""How long it takes to find out that the database is away, seconds."""


@dataclass(slots=True)
class Batch:
    """A committed batch and when, in the world's seconds; batch_id: given when its transaction began."""

    sealed: SealedBatch
    at: float
    batch_id: int = 0


@dataclass(slots=True)
class Lane:
    """A lane as the server knows it; when it was opened and closed, the world's seconds."""

    opened_at: float
    family: Family = Family.DELTAS
    batches: list[Batch] = field(default_factory=list)
    closed_at: float | None = None

    @property
    def is_closed(self) -> bool:
        return self.closed_at is not None


class Acknowledged(NamedTuple):
    """How far a lane is merged, as its gatherer was told, and when."""

    batch_no: int
    merge_no: int
    at: float


class MemoryDatabase:
    """One gatherer's server.

    Attributes:
        away: nothing is answered while it is above 0. doubt_share: share of commits whose answer is lost, 0..1.
        slow: factor on the time of a commit. rolled_back_share: share of transactions that the server gives up.
        held_s: how long the next transaction is held open before its COMMIT, seconds.
        identity: changes when it is emptied. incarnation: of the server; a restore or a wipe ends every connection.
        ever: everything that was ever committed, also what was lost since: (identity, lane, number, batch).
    """

    def __init__(self, chance: Random) -> None:
        self.lanes: dict[UUID, Lane] = {}
        self.away = 0
        self.doubt_share = 0.0
        self.slow = 1.0
        self.rolled_back_share = 0.0
        self.held_s = 0.0
        self.identity = UUID(int=chance.getrandbits(128))
        self.incarnation = 0
        self.acknowledged: dict[UUID, Acknowledged] = {}
        self.ever: list[tuple[UUID, UUID, int, SealedBatch]] = []
        self.batch_ids = count(1)
        self._read: dict[str, list[Any]] = {}
        self._chance = chance

    def new_lane(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128))

    def close_lanes(self) -> None:
        """Close every lane, as the successor of a process that was taken for dead does."""
        now = asyncio.get_running_loop().time()
        for lane in self.lanes.values():
            lane.closed_at = lane.closed_at if lane.is_closed else now

    def go_back(self, to: float) -> int | None:
        """Become what it was at `to`, the world's seconds, as a restore does.

        Returns:
            Sending time of the first frame that is lost, microseconds; None when nothing is.
        """
        self.incarnation += 1
        lost: list[Batch] = []
        for lane in self.lanes.values():
            lost += [batch for batch in lane.batches if batch.at > to]
            lane.batches = [batch for batch in lane.batches if batch.at <= to]
            if lane.closed_at is not None and lane.closed_at > to:
                lane.closed_at = None
        # A lane that was opened since is not known any more.
        self.lanes = {name: lane for name, lane in self.lanes.items() if lane.opened_at <= to}
        self.acknowledged = {name: a for name, a in self.acknowledged.items() if a.at <= to}
        return min((row.sent_from for row in _rows(lost, "listen_ranges")), default=None)

    def wipe(self) -> int | None:
        """Become an empty database of a new identity; returns as go_back() does."""
        self.identity = UUID(int=self._chance.getrandbits(128))
        return self.go_back(-1.0)

    def rows(self, table: str) -> list[Any]:
        """Every row of a table, lane by lane; ask only when nobody writes any more."""
        if table not in self._read:
            batches = [batch for lane in self.lanes.values() for batch in lane.batches]
            self._read[table] = list(_rows(batches, table))
        return self._read[table]

    async def commit_time(self) -> None:
        """Take the time of a statement.

        Raises:
            StoreUnavailable: the server is away.
        """
        if self.away:
            await asyncio.sleep(REFUSED_S)
            raise StoreUnavailable("the database is away")
        await asyncio.sleep(self._chance.uniform(*COMMIT_S) * self.slow)
        if self.away:
            raise StoreUnavailable("the database went away")

    def rolls_back(self) -> bool:
        return self.rolled_back_share > 0 and self._chance.random() < self.rolled_back_share

    def loses_answer(self) -> bool:
        return self.doubt_share > 0 and self._chance.random() < self.doubt_share


class MemoryLane:
    """Writes to one lane; has what a Pipeline needs of a LaneWriter.

    Attributes: committed_at, the world's seconds of the last commit.
    """

    def __init__(self, database: MemoryDatabase, family: Family) -> None:
        self._database = database
        self._family = family
        self.committed_at = asyncio.get_running_loop().time()
        self.lane = database.new_lane()
        self.confirmed = 0
        database.lanes[self.lane] = Lane(self.committed_at, family)

    async def write(self, batch: SealedBatch) -> Committed:
        """As LaneWriter.write()."""
        database = self._database
        incarnation, batch_id = database.incarnation, next(database.batch_ids)
        await database.commit_time()
        if held_s := database.held_s:
            # Open while others commit: what they commit has larger numbers and is there before.
            database.held_s = 0.0
            await asyncio.sleep(held_s)
        if incarnation != database.incarnation or database.rolls_back():
            raise StoreUnavailable("the transaction was rolled back")
        if judge(self._state(), self.confirmed, batch.digest) is None:
            now = asyncio.get_running_loop().time()
            database.lanes[self.lane].batches.append(Batch(batch, now, batch_id))
            database.ever.append((database.identity, self.lane, self.confirmed + 1, batch))
            self.committed_at = now
            if database.loses_answer():
                raise StoreUnavailable("the answer to the commit was lost")
        self.confirmed += 1
        return Committed(self.lane, self.confirmed, self.confirmed)

    async def reopen(self) -> None:
        """As LaneWriter.reopen()."""
        await self._database.commit_time()
        now = asyncio.get_running_loop().time()
        old = self._database.lanes.get(self.lane)
        if old is not None and not old.is_closed:
            old.closed_at = now
        self.lane, self.confirmed = self._database.new_lane(), 0
        self._database.lanes[self.lane] = Lane(now, self._family)

    def _state(self) -> LaneState | None:
        lane = self._database.lanes.get(self.lane)
        if lane is None:
            return None
        last, number = len(lane.batches), self.confirmed + 1
        digest = lane.batches[number - 1].sealed.digest if last >= number else None
        return LaneState(lane.is_closed, last, number if digest else None, digest)


def _rows(batches: list[Batch], table: str) -> Iterator[Any]:
    decode = codec(table).decode
    for batch in batches:
        for sealed in batch.sealed.tables:
            if sealed.name == table:
                yield from (decode(payload)[0] for payload in sealed.payloads)


def as_lane_writer(lane: MemoryLane) -> LaneWriter:
    """Say to the type checker what a Pipeline asks of it."""
    return cast(LaneWriter, lane)
