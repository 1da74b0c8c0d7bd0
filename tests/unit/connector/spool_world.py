"""Processes that spool, crash and inherit, over a database in memory: what tests of the spool share."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast
from uuid import UUID

from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import GapRow
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock, ManualClock
from libs.store.batches import SealedBatch
from libs.store.errors import LaneLost
from libs.store.lanes import Committed, LaneState, LaneWriter, judge
from libs.store.pool import Pool
from libs.store.spool import FamilySpool, SpoolLimits
from libs.store.spool_format import RunHeader
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer, Marks
from services.connector.inherited import Heir, Legacy
from services.connector.spooling import Spooling

MARKS = Marks(rows_high=8, rows_low=2, bytes_high=1 << 30, age=400_000)
LIMITS = SpoolLimits(1 << 30, 0, "never")
METRICS = Metrics("a")


class Killed(BaseException):
    """The process is gone, here and now."""


@dataclass
class Database:
    """Committed batches with their lanes, in order; closed lanes take nothing."""

    batches: list[tuple[UUID, SealedBatch]] = field(default_factory=list)
    closed: set[UUID] = field(default_factory=set)
    known: set[UUID] = field(default_factory=set)

    def of(self, lane: UUID) -> list[SealedBatch]:
        return [batch for found, batch in self.batches if found == lane]


class Lane:
    """A lane as LaneWriter is one; `dies` may kill the process before or after a commit."""

    def __init__(self, database: Database, rng: Random, dies: float = 0.0) -> None:
        self.database, self.rng, self.dies = database, rng, dies
        self.lane = UUID(int=rng.getrandbits(128))
        self.confirmed = 0

    async def open(self) -> None:
        self.database.known.add(self.lane)

    async def write(self, batch: SealedBatch) -> Committed:
        await self.open()
        self.die()
        own = self.database.of(self.lane)
        there = own[self.confirmed] if len(own) > self.confirmed else None
        state = LaneState(
            self.lane in self.database.closed, len(own), 1, there.digest if there else None
        )
        if judge(state, self.confirmed, batch.digest) is None:
            self.database.batches.append((self.lane, batch))
        self.die()
        self.confirmed += 1
        return Committed(self.lane, self.confirmed, 1)

    def die(self) -> None:
        if self.rng.random() < self.dies:
            raise Killed

    async def reopen(self) -> None:
        self.database.closed.add(self.lane)
        self.lane, self.confirmed = UUID(int=self.rng.getrandbits(128)), 0

    async def close(self) -> None:
        self.database.closed.add(self.lane)


class Connections:
    """A pool whose connections answer what a successor asks."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @asynccontextmanager
    async def acquire(self, timeout: float) -> Any:  # noqa: ASYNC109 - the pool's own
        yield self

    async def fetchval(self, query: str, lane: UUID) -> int | None:
        return len(self.database.of(lane)) if lane in self.database.known else None

    async def fetch(self, query: str, lane: UUID, after: int, limit: int) -> list[Any]:
        digests = [batch.digest for batch in self.database.of(lane)[after : after + limit]]
        return [(d.table_names, d.row_counts, d.row_hashes) for d in digests]


class Process:
    """One family of one process on a volume: buffer, spooling and lane, driven step by step."""

    def __init__(
        self,
        directory: Path,
        database: Database,
        rng: Random,
        *,
        family: Family = Family.TRADES,
        clock: Clock | None = None,
        limits: SpoolLimits = LIMITS,
        rows_max: int = 40,
        marks: Marks = MARKS,
    ) -> None:
        self.database, self.rng, self.family = database, rng, family
        self.clock = clock or ManualClock(1_000_000)
        self.metrics = METRICS
        self.spool = FamilySpool(directory, family, limits)
        assert self.spool.find() == []
        self.buffer = Buffer(family, rows_max, marks=marks)
        self.lane = Lane(database, rng)
        self.instance = rng.getrandbits(64)
        self.spooling = Spooling(
            self.buffer,
            self.spool,
            self.clock,
            self.metrics,
            header=self.header,
            position=lambda: (self.lane.lane, self.lane.confirmed),
            fsync_s=None,
            replay_rows_per_s=1e9,
        )
        self.gaps: list[GapRow] = []

    def header(self, now: int) -> RunHeader:
        return RunHeader(
            "a", "", "s", str(self.instance), self.family.value, str(self.lane.lane), now
        )

    async def write_once(self, sources: Any = ()) -> bool:
        """Commit the oldest batch; False when there is none. As the pipeline's writer does."""
        buffer = self.buffer
        while (record := buffer.peek()) is None and buffer.on_disk:
            self.gaps += await self.spooling.load(sources, self.clock.now())
        if record is None:
            return False
        try:
            await self.lane.write(record.sealed)
        except LaneLost:
            await self.lane.reopen()
            buffer.leave(sources, self.clock.now())
            return True
        buffer.commit()
        return True

    async def inherit(self, dies: float = 0.0) -> list[Legacy]:
        """Commit what earlier processes left.

        Raises:
            Killed: in the middle of it.
        """
        # Their lanes are closed first, as the successor does.
        self.database.closed |= self.database.known - {self.lane.lane}
        heir, done = self.heir(dies), []
        for run in list(self.spool.inherited):
            legacy = Legacy(heir, self.spool, run)
            await legacy.commit()
            await legacy.dispose()
            done.append(legacy)
        return done

    def heir(self, dies: float = 0.0) -> Heir:
        """What is needed to commit what earlier processes left."""
        return Heir(
            cast(Pool, Connections(self.database)), "s", "a", self.clock, self.metrics, TokenBucket(1e9, 1e9),
            lane_of=lambda _: cast(LaneWriter, Lane(self.database, self.rng, dies)),
            write_gap=self.gaps.append,
        )  # fmt: skip
