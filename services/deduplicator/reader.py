"""One gatherer's reader: follows its ledger by cursor, hands whole pages to the writer, shows it how far it is merged.

It lives through everything that can happen to its gatherer without the others noticing: away, slow, emptied, restored,
unsound. Cursors are production's; the reader's own position only runs ahead of them within one generation.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from libs.flow.backoff import Backoff
from libs.runtime.clock import Clock
from libs.runtime.sections import GathererSource
from libs.store.acknowledgements import (
    read_acknowledged_merge_no,
    write_acknowledgements,
    write_releases,
)
from libs.store.errors import GathererUnsound, StoreError, StoreUnavailable
from libs.store.merge_errors import WriterStopped
from libs.store.merge_transaction import Admission, EventRow
from libs.store.merger import ProductionWriter
from libs.store.notify import Listener
from libs.store.pages import Page, read_identity, read_page
from libs.store.pool import AnyConnection, Pool, connect, map_store_errors, open_pool
from libs.store.schema import check_level
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board, Delivery, Feed, Status
from services.deduplicator.merge import Reading
from services.deduplicator.settings import DeduplicatorSettings

log = get_logger(__name__)

APPLICATION = "kalshi-data deduplicator"
READMISSION_POLL_S = 1.0
MERGED_POLL_S = 0.02


class GathererReader:
    """Reads one zone until stop, then until it is drained."""

    def __init__(
        self,
        source: GathererSource,
        board: Board,
        writer: ProductionWriter,
        settings: DeduplicatorSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._board = board
        self._feed: Feed = board.feeds[source.zone]
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._reachable = metrics.gatherer_reachable.labels(gatherer=source.zone)
        self._quarantined = metrics.gatherer_quarantined.labels(gatherer=source.zone)
        self._position: dict[UUID, int] = {}
        self._generation = self._session = -1
        self._is_careful = False
        self._reset_backoff = False
        self._restored_lanes: set[UUID] = set()
        self._shown = 0
        self._identity: UUID
        self._acknowledged: dict[UUID, tuple[int, int]] = {}
        self._released: dict[UUID, tuple[int, int]] = {}
        self._acknowledged_at = 0.0
        self._log = log.bind(gatherer=source.zone)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until stop is set and this gatherer is drained or away; what fails is tried again with back-off."""
        backoff = Backoff(self._settings.backoff_s_min, self._settings.backoff_s_max)
        try:
            while True:
                try:
                    await self._be_connected(stop)
                    return
                except WriterStopped:
                    self._board.doubt()
                    await asyncio.sleep(self._settings.backoff_s_min)
                except (StoreError, TimeoutError) as error:
                    if self._reset_backoff:
                        backoff.reset()
                        self._reset_backoff = False
                    self._note_away(error)
                    if stop.is_set():
                        return
                    await first_of(stop, timeout_s=backoff.next_delay())
        finally:
            self._feed.is_done = True
            self._board.arrived.set()

    async def acknowledge(self, conn: AnyConnection) -> None:
        """Write back what is new: how far each lane is merged, and what may be released."""
        merged = self._feed.merged
        news = {lane: mark for lane, mark in merged.items() if self._acknowledged.get(lane) != mark}
        await write_acknowledgements(conn, news)
        self._acknowledged |= news
        releases = self._feed.releases
        news = {lane: mark for lane, mark in releases.items() if self._released.get(lane) != mark}
        await write_releases(conn, news)
        self._released |= news
        self._acknowledged_at = self._clock.monotonic()

    async def _be_connected(self, stop: asyncio.Event) -> None:
        """Be connected once; returns when stop is set and nothing is left to read."""
        target = self._source.store.target()
        async with (
            connect(target, APPLICATION) as conn,
            open_pool(target, wait=False, application=APPLICATION) as pool,
            _listening(pool) as listener,
        ):
            with map_store_errors():
                await self._introduce(conn)
                await self._follow(conn, listener, stop)

    async def _introduce(self, conn: AnyConnection) -> None:
        """Learn which database this is and how far it believes to be merged, before anything of it is read."""
        await check_level(conn, "gatherer")
        identity = await read_identity(conn)
        twin = self._board.claim(self._feed, identity.identity)
        if twin is not None:
            raise StoreError(f"zones {twin} and {self._source.zone} are the same database")
        self._shown = await read_acknowledged_merge_no(conn)
        self._board.merge_no_floor = max(self._board.merge_no_floor, self._shown)
        self._identity = identity.identity
        self._acknowledged, self._released = {}, {}
        self._session = -1
        self._reachable.set(1)
        self._reset_backoff = True
        self._feed.last_error = ""

    async def _follow(self, conn: AnyConnection, listener: Listener, stop: asyncio.Event) -> None:
        while await self._stand(stop):
            is_last_look = stop.is_set()
            began = self._clock.now()
            page = await self._read(conn)
            if page is None:
                continue
            has_more = await self._hand_over(page)
            is_behind = page.batches or has_more or self._feed.waiting
            if not is_behind and self._stands:
                self._feed.drained_at = began
            await self._acknowledge_when_due(conn, is_last_look)
            if is_last_look and self._feed.drained_at == began:
                await self.acknowledge(conn)
                return
            if not has_more:
                await self._pause(listener, stop)

    async def _stand(self, stop: asyncio.Event) -> bool:
        """Start from production's cursors whenever those we have may be others; False when stop came meanwhile."""
        while True:
            while not self._board.ready.is_set():
                self._feed.status = "waiting"
                if stop.is_set():
                    return False
                await first_of(self._board.ready, stop)
            if self._stands:
                return True
            admission = await self._admit()
            if admission.status == "quarantined":
                self._set_quarantined(admission.detail)
                await self._wait_readmitted(admission.gatherer, stop)
                self._session = -1
                if stop.is_set():
                    return False

    @property
    def _stands(self) -> bool:
        """True while our position goes on from production's cursors."""
        return (self._generation, self._session) == (self._board.generation, self._feed.session)

    async def _admit(self) -> Admission:
        """Read production's cursors. What is waiting was read from older ones and would turn them back: drop it first.

        What the writer has taken already is committed before it answers us.
        """
        self._generation = self._board.generation
        self._session = self._board.drop(self._feed)
        admission = await self._writer.admit(self._identity, self._source.zone)
        if admission.gatherer != self._feed.gatherer:
            self._feed.merged, self._feed.releases = {}, {}
        self._feed.gatherer = admission.gatherer
        await self._start_from(admission)
        return admission

    async def _start_from(self, admission: Admission) -> None:
        self._position = dict(admission.cursors)
        self._is_careful = False
        self._set_status("reading")
        if admission.is_new:
            self._log.warning("gatherer_admitted", identity=str(self._identity))
        behind = admission.last_merge_no - self._shown
        if behind > self._settings.behind_max:
            detail = f"shows merge_no {self._shown}, production merged it last in {admission.last_merge_no}"
            self._log.warning("gatherer_behind", detail=detail)
            await self._writer.record(EventRow("gatherer_behind", admission.gatherer, detail))

    async def _read(self, conn: AnyConnection) -> Page | None:
        """Read a page; None when the gatherer is unsound.

        At the first fault it is to be read again batch by batch, so that everything sound before it is merged; at the
        second it is quarantined.
        """
        rows = 1 if self._is_careful else self._settings.page_rows
        try:
            async with asyncio.timeout(self._settings.read_s_max):
                return await read_page(conn, self._position, rows)
        except GathererUnsound as fault:
            if not self._is_careful:
                self._is_careful = True
                return None
            detail = f"lane={fault.lane} batch_no={fault.batch_no} {fault.detail}"
        except TimeoutError as error:
            raise StoreUnavailable(f"no page within {self._settings.read_s_max} s") from error
        assert self._feed.gatherer is not None
        await self._let_merge()
        await self._writer.quarantine(self._feed.gatherer, detail)
        self._session = -1
        return None

    async def _let_merge(self) -> None:
        """Wait until the sound pages before the fault are merged; the next admission would throw them away."""
        end = self._clock.monotonic() + self._settings.read_s_max
        # Rare and short: an event for it would have to be set at every merge.
        while self._feed.waiting and self._stands and self._clock.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(MERGED_POLL_S)

    async def _hand_over(self, page: Page) -> bool:
        """Hand a page to the writer if there is anything in it; True when there is likely more to read."""
        readings = {
            lane.lane: Reading(lane.read, str(lane.family))
            for lane in page.lanes
            if lane.read > self._position.get(lane.lane, 0)
        }
        behind = sum(max(lane.last - lane.read, 0) for lane in page.lanes)
        self._feed.batches_behind = behind
        self._is_careful = self._is_careful and behind > 0
        await self._notice_restored(page)
        if not readings:
            return behind > 0
        for lane, reading in readings.items():
            self._position[lane] = reading.batch_no
        assert self._feed.gatherer is not None
        rows = sum(len(rows) for batch in page.batches for rows in batch.rows.values())
        await self._board.hand_over(
            Delivery(
                self._feed, self._generation, self._session, self._feed.gatherer, page.batches,
                readings, rows,
            )
        )  # fmt: skip
        return behind > 0

    async def _notice_restored(self, page: Page) -> None:
        """Tell of lanes that end before what was merged: this database is an older copy of itself. Nothing else to do:
        its writers leave such lanes, and a (lane, number) never has two contents.
        """
        for lane in page.lanes:
            merged = self._position.get(lane.lane, 0)
            if 0 < lane.last < merged and lane.lane not in self._restored_lanes:
                self._restored_lanes.add(lane.lane)
                detail = f"lane {lane.lane} ends at {lane.last}, {merged} was merged"
                self._log.warning("gatherer_went_back", detail=detail)
                event = EventRow("gatherer_went_back", self._feed.gatherer, detail)
                await self._writer.record(event)

    async def _acknowledge_when_due(self, conn: AnyConnection, is_now: bool) -> None:
        if is_now or self._clock.monotonic() - self._acknowledged_at >= self._settings.ack_s:
            await self.acknowledge(conn)

    async def _wait_readmitted(self, gatherer: int, stop: asyncio.Event) -> None:
        """Ask production until an operator has re-admitted this gatherer, or the writer begins anew."""
        while not stop.is_set():
            await first_of(stop, timeout_s=READMISSION_POLL_S)
            if not self._board.ready.is_set():
                return
            if await self._writer.status_of(gatherer) != "quarantined":
                self._log.warning("gatherer_readmitted")
                return

    def _set_quarantined(self, detail: str) -> None:
        self._set_status("quarantined")
        self._feed.last_error = detail
        self._feed.drained_at = None
        self._log.error("gatherer_quarantined", detail=detail)

    def _set_status(self, status: Status) -> None:
        self._feed.status = status
        self._quarantined.set(status == "quarantined")

    def _note_away(self, error: Exception) -> None:
        is_news = (
            self._feed.status not in ("away", "refused") or str(error) != self._feed.last_error
        )
        self._feed.status = (
            "away" if isinstance(error, StoreUnavailable | TimeoutError) else "refused"
        )
        self._feed.last_error = str(error) or type(error).__name__
        self._feed.drained_at = None
        self._reachable.set(0)
        if is_news:
            self._log.warning("gatherer_away", error=self._feed.last_error)

    async def _pause(self, listener: Listener, stop: asyncio.Event) -> None:
        """Wait for a wake-up, at most poll_ms and at least poll_ms_min; a stop ends it."""
        if stop.is_set():
            await asyncio.sleep(self._settings.poll_ms_min / 1000)
            return
        await first_of(stop, timeout_s=self._settings.poll_ms_min / 1000)
        left = (self._settings.poll_ms - self._settings.poll_ms_min) / 1000
        await first_of(listener.event, stop, timeout_s=max(left, 0.001))
        listener.event.clear()


@asynccontextmanager
async def _listening(pool: Pool) -> AsyncIterator[Listener]:
    """Listen for commits beside the reading; a wake-up lost costs the poll interval, so its faults end nothing."""
    listener, ended = Listener(pool), asyncio.Event()
    task = asyncio.create_task(listener.run(ended), name="listen")
    try:
        yield listener
    finally:
        ended.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
