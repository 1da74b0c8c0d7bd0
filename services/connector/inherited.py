"""What a dead process left in the spool of this volume: committed on lanes of our own, with its listening rows.

Its own lanes are closed by then (successor.py), so nothing of it is still to be committed there: what its last lane
already holds is left out, and the rest is offered in order. If that lane is not there as the process had confirmed it,
the database went back, and the first batches restate the streams. At the end the causes are written: where hearing
stopped, and what the crash tore off. Live batches go over lanes beside these and wait for nothing here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from libs.flow.batch import SidKey
from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import GapRow, ListenRangeRow, family_gaps, gap
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.store.borrowing import borrow_patiently
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import LaneWriter
from libs.store.pool import AnyConnection, Pool
from libs.store.spool import FamilySpool
from libs.store.spool_format import Record
from libs.store.spool_notes import Cursor
from libs.store.spool_reader import Lost
from libs.store.spool_run import SpoolRun
from libs.store.steady import Patience, reopen_steadily, write_steadily
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.connector.disk import Disk
from services.connector.openings import RESTATED_MAX, Keeper, Openings, offers, ranges_of
from services.connector.successor import Proof, key_of, look_at_lane

log = get_logger(__name__)

CHUNK_BYTES = 8 << 20
ACQUIRE_S_MAX = 5.0
READS_MAX = 3
RETRY_S = 1.0

T = TypeVar("T")


@dataclass(slots=True)
class Heir:
    """What is needed to commit the runs of dead processes. identity: of the zone's database, once it is known."""

    pool: Pool
    shard: str
    zone: str
    clock: Clock
    metrics: Metrics
    bucket: TokenBucket
    lane_of: Callable[[Family], LaneWriter]
    write_gap: Callable[[GapRow], None]
    holds: Callable[[Family], bool] = lambda _: False
    """True while a family's batches are not to be committed."""
    identity: str = ""
    known: dict[SidKey, GapRow] = field(default_factory=dict)
    """Gaps of sids that these runs may know better: where hearing stopped by what the database has."""


class Legacy:
    """One run of a dead process on its way into the database. batches, doubles, torn: for the log."""

    def __init__(self, heir: Heir, spool: FamilySpool, run: SpoolRun) -> None:
        self.run = run
        self.batches = self.doubles = self.torn = 0
        self._heir = heir
        self._family = Family(run.header.family)
        self._spool = spool
        self._disk = Disk()
        self._openings = Openings()
        self._as_of = self._done = run.cursor.done if run.cursor else 0
        self._heard: dict[SidKey, ListenRangeRow] = {}
        self._channels: set[str] = set()
        self._patience = Patience(f"{self._family} (spool)", heir.clock.now)
        self._lane = heir.lane_of(self._family)
        self._proof = Proof(is_sound=False, went_back=False, digests=frozenset())
        self._is_undone = self._is_open = False
        self._keeper = Keeper()
        self._replayed = heir.metrics.spool_replayed_batches_total.labels(family=self._family.value)
        self._torn = heir.metrics.spool_torn_records_total.labels(family=self._family.value)

    async def commit(self) -> None:
        """Commit everything that can be read and write down what cannot; the files stay until dispose()."""
        await self._begin()
        while items := await self._read():
            for item in items:
                if isinstance(item, Record):
                    await self._take(item)
                else:
                    self._lose(item)
            await self._note()
        await self._lane_closed()
        for row in self._ends():
            self._heir.write_gap(row)

    async def dispose(self) -> None:
        """Delete the files: rows and causes are committed."""
        try:
            await self._disk.do(lambda: self._spool.drop(self.run), hangs_s=None)
        except OSError as error:
            log.warning("spool_not_deleted", run=self.run.path.name, error=str(error))

    async def _begin(self) -> None:
        state = await self._disk.do(self.run.load_state, hangs_s=None)
        try:
            if state is not None:
                self._openings, self._as_of = Openings.load(state)
        except ValueError as error:
            log.warning("spool_state_unreadable", run=self.run.path.name, error=str(error))
        self._done = max(self._done, self._as_of)
        cursor, header = self.run.cursor, self.run.header
        self._proof = await self._steadily(lambda conn: look_at_lane(conn, cursor))
        is_other = bool(header.identity) and header.identity != self._heir.identity
        self._is_undone = is_other or not self._proof.is_sound
        if is_other or self._proof.went_back:
            self._write_gaps("database_went_back", f"the spool's lane {header.lane}")

    async def _take(self, record: Record) -> None:
        if record.number <= self._as_of:
            return
        for key, row in ranges_of(record.sealed):
            self._heard[key] = row
        for key in record.ended:
            # It was closed after all: the database could not know.
            self._heir.known.pop(key, None)
        if record.number <= self._done:
            self._openings.apply(record)
            return
        if self._is_undone:
            # Only here, behind what the dead process knew to be committed: all that goes on is restated now.
            self._openings.lose()
            self._is_undone = False
        content = key_of(record.sealed.digest)
        if content and content in self._proof.digests:
            self.doubles += 1
            self._openings.apply(record)
        else:
            if not self.batches:
                await self._open_lane()
            await self._write(record)
        self._done = record.number

    async def _write(self, record: Record) -> None:
        wait_s = self._heir.bucket.reserve(self._heir.clock.monotonic(), record.sealed.rows)
        if wait_s:
            await asyncio.sleep(wait_s)
        while True:
            if self._heir.holds(self._family):
                await asyncio.sleep(RETRY_S)
                continue
            openings = self._openings.restate(record, self._heir.clock.now(), {})
            try:
                for offer in offers(record, openings, RESTATED_MAX):
                    await write_steadily(self._lane, offer.record.sealed, self._patience)
            except LaneLost as lost:
                log.warning("lane_lost", family=self._family.value, reason=lost.reason)
                if lost.reason != "closed":
                    self._write_gaps("database_went_back", f"{lost.reason}: {self._lane.lane}")
                await reopen_steadily(self._lane, self._patience)
                self._openings.lose()
            else:
                self._openings.apply(record)
                self.batches += 1
                self._replayed.inc()
                return

    def _lose(self, lost: Lost) -> None:
        """Nobody knows what was opened and closed in it: nothing behind it is claimed for streams from before it."""
        if lost.number_to is not None and lost.number_to <= self._as_of:
            return
        self._note_channels()
        self._openings.forget()
        if lost.number_to is not None and lost.number_to <= self._done:
            return  # it is committed
        count = 1 if lost.number_to is None else lost.number_to - lost.number_from + 1
        self.torn += count
        self._torn.inc(count)
        if lost.number_to is not None:
            self._done = max(self._done, lost.number_to)
        text = "the end of the spool is torn" if lost.number_to is None else f"{count} batches torn"
        log.error("spool_records_lost", run=self.run.path.name, batches=count, rows=lost.rows)
        self._write_gaps("process_died", f"{self._heir.shard}: {text}", lost.rows)

    def _ends(self) -> Iterable[GapRow]:
        """Yield where hearing stopped, for every sid that the process did not live to close."""
        now = self._heir.clock.now()
        for key, (channel, slot) in self._openings.sids.items():
            known = self._heir.known.pop(key, None)
            row = gap(
                now, channel, "process_died", slot=slot, detail=self._heir.shard,
                received_to=now, connection=key[0], sid=key[1],
            )  # fmt: skip
            last = self._heard.get(key)
            if last is not None:
                yield row._replace(
                    from_ts=last.sent_to, received_from=last.received_at, seq_from=last.seq_to
                )
            else:
                yield known or row

    def _write_gaps(self, reason: str, detail: str, rows_lost: int | None = None) -> None:
        now = self._heir.clock.now()
        rows = family_gaps(now, self._family.value, reason, detail=detail, received_to=now)
        # A run of trades from before tickers had a family of their own may have held both.
        self._note_channels()
        others = self._channels - {row.channel for row in rows}
        for row in (*rows, *(rows[0]._replace(channel=other) for other in sorted(others))):
            self._heir.write_gap(row._replace(rows_lost=rows_lost))

    def _note_channels(self) -> None:
        self._channels.update(channel for channel, _ in self._openings.sids.values())

    # --- disk and database ---

    async def _read(self) -> list[Record | Lost]:
        for _ in range(READS_MAX):
            try:
                return await self._disk.do(lambda: self.run.read(CHUNK_BYTES), hangs_s=None)
            except OSError as error:
                log.warning("spool_unreadable", run=self.run.path.name, error=str(error))
            await asyncio.sleep(RETRY_S)
        return [*self.run.skip()] or await self._read()

    async def _note(self) -> None:
        cursor = self._position()
        if cursor is None:
            return
        delete = self.run.has_done(self._done)
        snapshot = self._keeper.due(self._openings, self._done, delete=delete)
        pack = snapshot.pack if snapshot is not None else None
        try:
            await self._disk.do(
                lambda: self.run.release(cursor, pack, delete=delete, sync=self._spool.syncs),
                hangs_s=None,
            )
        except OSError as error:
            log.warning("spool_failed", run=self.run.path.name, error=str(error))
        else:
            if snapshot is not None:
                self._keeper.saved(snapshot)

    def _position(self) -> Cursor | None:
        """Where doubles are to be looked for: on our lane, before it is there still on that of the dead process."""
        if self._is_open:
            return Cursor(self._done, self._lane.lane, self._lane.confirmed)
        last = self.run.cursor
        return last._replace(done=self._done) if last is not None else None

    async def _steadily(self, ask: Callable[[AnyConnection], Awaitable[T]]) -> T:
        while True:
            try:
                async with borrow_patiently(self._heir.pool, ACQUIRE_S_MAX) as conn:
                    found = await ask(conn)
            except StoreUnavailable as error:
                await self._patience.pause(error)
            else:
                self._patience.answered()
                return found

    async def _open_lane(self) -> None:
        """Open our lane, and note that from here on doubles are to be looked for there."""
        while True:
            try:
                await self._lane.open()
            except StoreUnavailable as error:
                await self._patience.pause(error)
            else:
                self._patience.answered()
                break
        self._is_open = True
        await self._note()

    async def _lane_closed(self) -> None:
        try:
            await self._lane.close()
        except StoreUnavailable as error:
            log.warning("lane_left_open", lane=self._lane.lane, error=str(error))
