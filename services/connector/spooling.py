"""What moves a family's batches between memory and disk, while its writer goes on.

The buffer says what is to move (buffer.py), the store knows how it lies on the disk (libs/store/spool.py); here is when.
All of the disk's work happens in a thread, one piece at a time, so that no reader of a socket ever waits for it. A disk
that is full or broken leaves the batches in memory: capture goes on, and what does not fit there becomes a gap.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from libs.flow.batch import Source
from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import GapRow, family_gaps
from libs.runtime.clock import Clock
from libs.store.spool import FamilySpool, SpoolFull
from libs.store.spool_format import Record, RunHeader
from libs.store.spool_notes import Cursor
from libs.store.spool_reader import Lost
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.disk import Disk
from services.connector.openings import Keeper

log = get_logger(__name__)

TURN_S = 0.25
"""How often the disk is looked after, seconds; also the least time between two batches that are cut for it."""
CHUNK_BYTES = 8 << 20
"""Bytes that go to the thread or come from it at once."""
RETRY_S = 1.0
"""Seconds after which a full or broken disk is tried again."""
READS_MAX = 3
"""How often a disk that gives an error is asked for a segment before it is given up."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What lies on the disk: bytes of files, batches and rows not committed; age of the oldest, seconds."""

    bytes: int
    batches: int
    rows: int
    age_s: float


class Spooling:
    """See the module. One per family.

    Attributes: disk: its thread.

    Args of the constructor: the family's buffer and its part of the spool; `header` makes the header of a new run at a
    time; `position` gives the lane that is written to and the number confirmed there; fsync_s: seconds between two
    syncs, None: none of ours; replay_rows_per_s bounds what comes back from the disk.
    """

    def __init__(
        self,
        buffer: Buffer,
        spool: FamilySpool,
        clock: Clock,
        metrics: Metrics,
        *,
        header: Callable[[int], RunHeader],
        position: Callable[[], tuple[UUID, int]],
        fsync_s: float | None,
        replay_rows_per_s: float,
    ) -> None:
        self.disk = Disk()
        self._trouble = ""
        self.buffer = buffer
        self.spool = spool
        self.cut_due: Callable[[int], None] = lambda _: None
        self._clock = clock
        self._header = header
        self._position = position
        self._fsync_s = fsync_s
        self._synced_at = clock.monotonic()
        self._bucket = TokenBucket(replay_rows_per_s, replay_rows_per_s / 10)
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._read_ahead: deque[Record | Lost] = deque()
        self._blocked_until = self._cut_at = 0.0
        self._keeper = Keeper()
        family = buffer.family.value
        self._log = log.bind(family=family)
        self._size = metrics.spool_bytes.labels(family=family)
        self._replayed = metrics.spool_replayed_batches_total.labels(family=family)
        self._torn = metrics.spool_torn_records_total.labels(family=family)
        self._faults = metrics.spool_faults_total.labels(family=family)

    # --- what the owner asks ---

    @property
    def fault(self) -> str:
        """Why nothing can be written now; empty when it can."""
        return "spool_hangs" if self.disk.hangs else self._trouble

    @property
    def figures(self) -> Figures:
        """What lies on the disk now."""
        buffer = self.buffer
        batches = max(0, buffer.spooled_to - buffer.done)
        oldest = buffer.oldest_at if batches else None
        age = (self._clock.now() - oldest) / 1_000_000 if oldest is not None else 0.0
        return Figures(self.spool.size_bytes, batches, buffer.disk_rows if batches else 0, age)

    async def run(self, ended: asyncio.Event) -> None:
        """Look after the disk until the end."""
        while not ended.is_set():
            self._wake.clear()
            await self.turn()
            await first_of(ended, self._wake, timeout_s=TURN_S)

    def poke(self) -> None:
        """Let run() look now; what a full or broken disk left in memory waits for the next time it is tried."""
        if self._clock.monotonic() >= self._blocked_until:
            self._wake.set()

    async def turn(self) -> None:
        """Note what is committed, delete what is done, write what is to be written."""
        async with self._turn:
            if self.disk.hangs:
                return
            self._catch_up()
            await self._tidy()
            now, now_s = self._clock.now(), self._clock.monotonic()
            if self.buffer.is_spooling and now_s - self._cut_at >= TURN_S:
                self._cut_at = now_s
                self.cut_due(now)
            if self._clock.monotonic() >= self._blocked_until:
                await self._write(self.buffer.to_spool(now, CHUNK_BYTES))
            await self._sync_if_due()
            self._size.set(self.spool.size_bytes)

    async def keep_all(self) -> None:
        """Write everything in memory to the disk, because the process ends; as far as there is room."""
        async with self._turn:
            if self.disk.hangs:
                self._log.error("spool_hangs", rows=self.buffer.rows)
                return
            self._catch_up()
            while records := self.buffer.to_spool(self._clock.now(), CHUNK_BYTES, force=True):
                before = self.buffer.spooled_to
                await self._write(records)
                if self.buffer.spooled_to == before:
                    break
            await self._tidy()
            if self.spool.syncs:
                await self._try(self._sync)

    async def pace(self, record: Record) -> None:
        """Wait for a batch's turn, so that what comes from the disk leaves room for what comes from the sockets."""
        wait_s = self._bucket.reserve(self._clock.monotonic(), record.sealed.rows)
        if record.number <= self.buffer.spooled_to:
            self._replayed.inc()
        if wait_s:
            await asyncio.sleep(wait_s)

    async def load(self, sources: Iterable[Source], now: int) -> list[GapRow]:
        """Bring the next batches from the disk into the buffer; call it when the buffer has none of them in memory.

        Returns:
            The gaps of batches that the disk does not give back.
        """
        if not self._read_ahead:
            self._read_ahead += await self._read()
        if not self._read_ahead and self.buffer.on_disk:
            self._read_ahead.append(Lost(self.buffer.done + 1, self.buffer.spooled_to, None))
        gaps: list[GapRow] = []
        while self._read_ahead:
            item = self._read_ahead[0]
            if isinstance(item, Record):
                self.buffer.loaded(item)
            elif self.buffer.peek() is not None:
                break  # not before what stands in front of it is committed
            else:
                gaps += self._lose(item, sources, now)
            self._read_ahead.popleft()
        return gaps

    # --- the disk ---

    async def _write(self, records: list[Record]) -> None:
        if not records:
            return
        is_new = self.spool.run is None or not self.spool.run.last
        snapshot = self.buffer.openings.dump(self.buffer.done) if is_new else None
        header = self._header(self._clock.now())
        cursor = Cursor(self.buffer.done, *self._position())
        if await self._try(
            lambda: self.spool.append(header, records, snapshot.pack if snapshot else bytes, cursor)
        ):
            self._writable()
        run = self.spool.run
        if run is not None and run.last:
            if is_new and snapshot is not None:
                self._keeper.saved(snapshot)
                self._log.warning("spool_begun", rows=self.buffer.rows, run=run.path.name)
            self.buffer.spooled(run.last)

    def _catch_up(self) -> None:
        """Note what a piece of work that hung has written in the end."""
        run = self.spool.run
        if run is not None and run.last > self.buffer.spooled_to:
            self.buffer.spooled(run.last)

    async def _tidy(self) -> None:
        run, buffer = self.spool.run, self.buffer
        if run is None or not run.last:
            return
        cursor = Cursor(buffer.done, *self._position())
        if not buffer.on_disk and not buffer.is_spooling:

            def drop() -> None:
                run.release(cursor, None, delete=False, sync=False)
                self.spool.drop(run)

            if await self._try(drop):
                self._log.info("spool_drained", run=run.path.name, last=run.last)
        elif cursor != run.cursor:
            delete = run.has_done(cursor.done)
            snapshot = self._keeper.due(buffer.openings, cursor.done, delete=delete)
            pack = snapshot.pack if snapshot is not None else None

            def note() -> None:
                run.release(cursor, pack, delete=delete, sync=self.spool.syncs)

            if await self._try(note) and snapshot is not None:
                self._keeper.saved(snapshot)

    async def _sync_if_due(self) -> None:
        now_s = self._clock.monotonic()
        if self._fsync_s is not None and now_s - self._synced_at >= self._fsync_s:
            self._synced_at = now_s
            if self.spool.run is not None:
                await self._try(self._sync)

    def _sync(self) -> None:
        if self.spool.run is not None:
            self.spool.run.sync()

    async def _try(self, work: Callable[[], None]) -> bool:
        """Do a piece of the disk's work in a thread; False when it is full or broken, which is said once."""
        try:
            await self.disk.do(work)
        except SpoolFull as error:
            self._stop_writing("spool_full", error)
        except OSError as error:
            self._faults.inc()
            hangs = isinstance(error, TimeoutError)
            self._stop_writing("spool_hangs" if hangs else "spool_failed", error)
        else:
            return True
        return False

    def _stop_writing(self, trouble: str, error: Exception) -> None:
        self._blocked_until = self._clock.monotonic() + RETRY_S
        if self._trouble != trouble:
            self._trouble = trouble
            self._log.error("spool_unwritable", reason=trouble, error=str(error))

    def _writable(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._log.info("spool_writable")

    async def _read(self) -> list[Record | Lost]:
        run = self.spool.run
        if run is None:
            return []
        for attempt in range(READS_MAX):
            try:
                # However long it takes: what does not come is not lost.
                return await self.disk.do(lambda: run.read(CHUNK_BYTES), hangs_s=None)
            except OSError as error:
                self._faults.inc()
                if not attempt:
                    self._log.error("spool_unreadable", error=str(error))
            await asyncio.sleep(RETRY_S)
        return [*run.skip()] or await self._read()

    def _lose(self, lost: Lost, sources: Iterable[Source], now: int) -> tuple[GapRow, ...]:
        to = self.buffer.spooled_to if lost.number_to is None else lost.number_to
        batches = to - self.buffer.done
        if batches <= 0:
            return ()
        self.buffer.unreadable(to, sources)
        self._torn.inc(batches)
        self._log.error("spool_records_lost", batches=batches, rows=lost.rows)
        detail = f"{batches} batches of the spool cannot be read"
        gaps = family_gaps(now, self.buffer.family, "spool_full", detail=detail, received_to=now)
        return tuple(gap._replace(rows_lost=lost.rows) for gap in gaps)
