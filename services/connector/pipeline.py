"""One table family's way to the database: batcher, bounded buffer, lane.

The readers only ever call `pump`, which never waits. One task writes: the oldest batch first, the same batch again
while the database is away or in doubt. While it writes, batches grow by count instead of age, so a slow database gets
fewer and larger commits. A lane that is lost is left: what is still held goes to a new one with its openings restated.
What waits too long goes to the disk spool, if there is one (spooling.py), and comes back from it in its order.
"""

import asyncio
from collections import Counter

from libs.flow.batch import Batcher
from libs.marketdata.rows import GapRow, family_gaps
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.store.errors import LaneLost
from libs.store.lanes import LaneWriter
from libs.store.spool_format import Record
from libs.store.steady import Patience, reopen_steadily, write_steadily
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.outlets import Outlets
from services.connector.spooling import Spooling
from services.connector.storage import Storage

log = get_logger(__name__)

HELD_TURN_S = 0.25
"""Seconds between two batches of a family that is held back, unless they are full before."""


class Pipeline:
    """See the module.

    Attributes:
        written: rows committed by table. lag_ms: from the first row's receipt to the last commit, milliseconds.
    """

    def __init__(
        self,
        family: Family,
        outlets: Outlets,
        buffer: Buffer,
        lane: LaneWriter,
        clock: Clock,
        metrics: Metrics,
        spooling: Spooling | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.family = family
        self.batcher: Batcher = outlets.batchers[family]
        self.buffer = buffer
        self.lane = lane
        self.written: Counter[str] = Counter()
        self.spooling = spooling
        self.lag_ms: float | None = None
        self._storage = storage
        self._outlets = outlets
        self._clock = clock
        self._metrics = metrics
        self._patience = Patience(family.value, clock.now, on_wait=self._note_rows)
        self._wake = asyncio.Event()
        self._finish: asyncio.Event = asyncio.Event()
        self._dropped = Counter[str]()
        self._flush_seconds = metrics.flush_seconds.labels(family=family.value)
        self._committed = metrics.batches_committed_total.labels(family=family.value)
        self._waiting = metrics.buffer_rows.labels(family=family.value)

    # --- the readers' side: never waits ---

    def pump_full(self, now: int) -> None:
        """Cut a batch if it is full, and have one looked at that became urgent; called after every read."""
        if self.batcher.is_full:
            self._cut(now)
            self._wake.set()
        elif self.batcher.take_hurry():
            self._wake.set()

    def mark(self) -> int:
        """Hand everything collected so far to the writer; has_written() says when that is done."""
        now = self._clock.now()
        self._cut(now)
        if self._finish.is_set():
            self._tell_drops(now)
        self._wake.set()
        return self.buffer.taken

    def has_written(self, mark: int) -> bool:
        """True when everything collected before the mark is committed, or dropped and written down as a gap.

        What is held back is waited for by nobody: that may take days, and what then becomes of it is told by its rows.
        """
        return self.buffer.done >= mark or self._is_held_back

    @property
    def is_held(self) -> bool:
        """True while nothing is to be committed: the database is too large, or was not looked at yet.

        At the end it is the first only, and with a disk.
        """
        if self._storage is None or not self._storage.holds(self.family):
            return False
        is_left = self.spooling is not None and self._storage.is_full
        return is_left or not self._finish.is_set()

    @property
    def _is_held_back(self) -> bool:
        """True while it is held for longer than a first look takes."""
        return self.is_held and self._storage is not None and self._storage.is_full

    def cut_due(self, now: int) -> None:
        """Cut a batch if it is full or old enough; for the spool, while the writer waits for the database."""
        if self.batcher.is_due(now):
            self._cut(now)

    def _cut(self, now: int) -> None:
        batch = self.batcher.cut(now)
        if batch is not None:
            self.buffer.drops.reason = "storage_full" if self._is_held_back else "spool_full"
            self._note_gaps(self.buffer.put(batch, now), now)
            if self.buffer.dropped != self._dropped:
                self._count_drops()
            if self.spooling is not None and self.buffer.wants_disk:
                self.spooling.poke()

    def _tell_drops(self, now: int) -> bool:
        """Write down the drops after which nothing more was put; True when there were any."""
        return self._note_gaps(self.buffer.take_gaps(now), now)

    def _note_gaps(self, gaps: list[GapRow], now: int) -> bool:
        for gap in gaps:
            self._outlets.gap(gap, now)
        return bool(gaps)

    def _count_drops(self) -> None:
        if not self._dropped:
            log.error("buffer_full", family=self.family.value, rows=self.buffer.rows)
        reason = self.buffer.drops.reason
        for table, rows in (self.buffer.dropped - self._dropped).items():
            self._metrics.rows_dropped_total.labels(table=table, reason=reason).inc(rows)
        self._dropped = Counter(self.buffer.dropped)

    # --- the writer ---

    async def run(self) -> None:
        """Write batches until finish() was called and everything is committed; what is held back is left then."""
        while True:
            finishing = self._finish.is_set()
            now = self._clock.now()
            if finishing or self.batcher.is_due(now):
                self._cut(now)
            while not self.is_held and (record := await self._next()) is not None:
                await self._write(record)
            self._waiting.set(self.batcher.count)
            if finishing and not self._tell_drops(self._clock.now()) and not self.batcher.count:
                return
            if finishing:
                continue
            await first_of(self._wake, timeout_s=self._due_in_s())
            self._wake.clear()

    def _due_in_s(self) -> float:
        """Seconds to the next look; while held there is no hurry, and batches are better few."""
        due_s = self.batcher.due_in(self._clock.now()) / 1_000_000
        return max(due_s, HELD_TURN_S) if self.is_held else due_s

    def finish(self) -> None:
        """Let run() end once everything collected so far is committed.

        The gaps of what was dropped go to the family `rest`, which is therefore to be finished after the others.
        """
        self._finish.set()
        self._wake.set()

    async def _next(self) -> Record | None:
        """Return the oldest batch, from the disk if it is there."""
        while (record := self.buffer.peek()) is None and self.spooling and self.buffer.on_disk:
            now = self._clock.now()
            self._note_gaps(await self.spooling.load(self.batcher.sources, now), now)
        if record is not None and self.spooling and self.buffer.on_disk:
            await self.spooling.pace(record)
        return record

    async def _write(self, record: Record) -> None:
        started = self._clock.monotonic()
        try:
            await write_steadily(self.lane, record.sealed, self._patience)
        except LaneLost as lost:
            await self._leave(lost)
            return
        self.buffer.commit()
        self._note_written(record, started)

    def _note_written(self, record: Record, started: float) -> None:
        self._committed.inc()
        self._flush_seconds.observe(self._clock.monotonic() - started)
        self._note_rows()
        self.lag_ms = (self._clock.now() - record.first_at) / 1000
        for table, rows in record.counts.items():
            self.written[table] += rows
            self._metrics.rows_written_total.labels(table=table).inc(rows)

    def _note_rows(self) -> None:
        self._waiting.set(self.buffer.rows + self.batcher.count)

    async def _leave(self, lost: LaneLost) -> None:
        """Open a new lane, restate, and write down why."""
        old = self.lane.lane
        log.warning("lane_lost", family=self.family.value, lane=str(old), reason=lost.reason)
        # Also before there is a new lane: who finds it beside a spool must find there what is to be restated on it.
        self.buffer.leave(self.batcher.sources, self._clock.now())
        await reopen_steadily(self.lane, self._patience)
        now = self._clock.now()
        self.buffer.leave(self.batcher.sources, now)
        if lost.reason != "closed":
            for source in self.batcher.sources:
                source.missed()
            detail = f"{lost.reason}: lane {old}"
            for gap in family_gaps(
                now, self.family, "database_went_back", detail=detail, received_to=now
            ):
                self._outlets.gap(gap, now)
