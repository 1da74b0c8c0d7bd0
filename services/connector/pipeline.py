"""One table family's way to the database: batcher, bounded buffer, lane.

The readers only ever call `pump`, which never waits. One task writes: the oldest batch first, the same batch again
while the database is away or in doubt. While it writes, batches grow by count instead of age, so a slow database gets
fewer and larger commits. A lane that is lost is left: what is still held goes to a new one with its openings restated.
"""

import asyncio
from collections import Counter

from libs.flow.batch import Batcher
from libs.marketdata.rows import GapRow
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer, Pending
from services.connector.outlets import Outlets

log = get_logger(__name__)

WAIT_S_MIN = 0.2
WAIT_S_MAX = 5.0


class Pipeline:
    """See the module.

    Attributes:
        written: rows committed by table. lag_ms: from the first row's receipt to the last commit, milliseconds.
        away_since: monotonic seconds since which the database is away; None while it answers.
    """

    def __init__(
        self,
        family: Family,
        outlets: Outlets,
        buffer: Buffer,
        lane: LaneWriter,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.family = family
        self.batcher: Batcher = outlets.batchers[family]
        self.buffer = buffer
        self.lane = lane
        self.written: Counter[str] = Counter()
        self.batches = 0
        self.lag_ms: float | None = None
        self.away_since: float | None = None
        self._outlets = outlets
        self._clock = clock
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._finish: asyncio.Event = asyncio.Event()
        self._dropped = Counter[str]()
        self._flush_seconds = metrics.flush_seconds.labels(family=family.value)
        self._committed = metrics.batches_committed_total.labels(family=family.value)
        self._waiting = metrics.buffer_rows.labels(family=family.value)

    # --- the readers' side: never waits ---

    def pump_full(self, now: int) -> None:
        """Cut a batch if it is full; called after every read."""
        if self.batcher.is_full:
            self._cut(now)
            self._wake.set()

    def _cut(self, now: int) -> None:
        batch = self.batcher.cut(now)
        if batch is not None:
            for gap in self.buffer.put(batch, now):
                self._outlets.gap(gap, now)
            if self.buffer.dropped != self._dropped:
                self._count_drops()

    def _count_drops(self) -> None:
        if not self._dropped:
            log.error("buffer_full", family=self.family.value, rows=self.buffer.rows)
        for table, rows in (self.buffer.dropped - self._dropped).items():
            self._metrics.rows_dropped_total.labels(table=table, reason="spool_full").inc(rows)
        self._dropped = Counter(self.buffer.dropped)

    # --- the writer ---

    async def run(self) -> None:
        """Write batches until finish() was called and everything is committed."""
        age_s = self.batcher.limits.age / 1_000_000
        while True:
            finishing = self._finish.is_set()
            now = self._clock.now()
            if finishing or self.batcher.is_due(now):
                self._cut(now)
            while (pending := self.buffer.peek()) is not None:
                await self._write(pending)
            self._waiting.set(self.batcher.count)
            if finishing and not self.batcher.count:
                return
            await self._sleep(age_s)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def finish(self) -> None:
        """Let run() end once everything collected so far is committed."""
        self._finish.set()
        self._wake.set()

    async def _write(self, pending: Pending) -> None:
        started = self._clock.monotonic()
        wait = WAIT_S_MIN
        while True:
            try:
                await self.lane.write(pending.sealed)
            except StoreUnavailable as error:
                self._note_away(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, WAIT_S_MAX)
            except LaneLost as lost:
                await self._leave(lost)
                return
            else:
                break
        self.buffer.commit()
        self._note_written(pending, started)

    def _note_written(self, pending: Pending, started: float) -> None:
        if self.away_since is not None:
            log.info("database_back", family=self.family.value, rows_waiting=self.buffer.rows)
            self.away_since = None
        self.batches += 1
        self._committed.inc()
        self._flush_seconds.observe(self._clock.monotonic() - started)
        self._waiting.set(self.buffer.rows + self.batcher.count)
        self.lag_ms = (self._clock.now() - pending.first_at) / 1000
        for table, rows in pending.counts.items():
            self.written[table] += rows
            self._metrics.rows_written_total.labels(table=table).inc(rows)

    def _note_away(self, error: StoreUnavailable) -> None:
        self._waiting.set(self.buffer.rows + self.batcher.count)
        if self.away_since is None:
            self.away_since = self._clock.monotonic()
            log.warning("database_away", family=self.family.value, error=str(error))

    async def _leave(self, lost: LaneLost) -> None:
        """Open a new lane, restate, and write down why."""
        log.warning(
            "lane_lost", family=self.family.value, lane=str(self.lane.lane), reason=lost.reason
        )
        old, wait = self.lane.lane, WAIT_S_MIN
        while True:
            try:
                await self.lane.reopen()
                break
            except StoreUnavailable as error:
                self._note_away(error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, WAIT_S_MAX)
        now = self._clock.now()
        # From here to the end nothing waits: everything uncommitted must stand in the buffer when it is restated.
        self._cut(now)
        self.buffer.leave(self.batcher.sources, now)
        if lost.reason != "closed":
            self._outlets.gap(self._cause(lost, str(old), now), now)

    def _cause(self, lost: LaneLost, lane: str, now: int) -> GapRow:
        return GapRow(
            now, 0, self.family.value, "", "database_went_back", f"{lost.reason}: lane {lane}",
            None, None, now, None, now, None, None, None, None, None,
        )  # fmt: skip
