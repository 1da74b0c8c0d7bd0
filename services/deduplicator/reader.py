"""One gatherer's reader: follows its ledger by cursor, hands whole pages to the writer, shows it how far it is merged.

It lives through everything that can happen to its gatherer without the others noticing: away, slow, emptied, restored,
unsound. Where it is read from, and whether it may be, is standing.py's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.flow.backoff import Backoff
from libs.runtime.clock import Clock
from libs.runtime.sections import GathererSource
from libs.store.errors import GathererUnsound, StoreError, StoreUnavailable
from libs.store.merge_errors import WriterStopped
from libs.store.merger import ProductionWriter
from libs.store.notify import Listener
from libs.store.pages import Page, read_identity, read_page
from libs.store.pool import AnyConnection, Pool, connect, map_store_errors, open_pool
from libs.store.schema import check_level
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.acknowledging import Acknowledging
from services.deduplicator.board import Board, Feed
from services.deduplicator.settings import DeduplicatorSettings
from services.deduplicator.standing import Standing

log = get_logger(__name__)

APPLICATION = "kalshi-data deduplicator"
MERGED_POLL_S = 0.02


class GathererReader:
    """Reads one zone until stop, then what it has committed by then."""

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
        self._settings = settings
        self._clock = clock
        self._reachable = metrics.gatherer_reachable.labels(gatherer=source.zone)
        self._acknowledging = Acknowledging(self._feed, clock, settings.ack_s)
        self._standing = Standing(
            self._feed, board, writer, self._acknowledging, settings.release_after_s, metrics
        )
        self._is_careful = False
        self._reset_backoff = False
        self._log = log.bind(gatherer=source.zone)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until stop is set and what this gatherer had committed by then is merged, or it is away.

        What fails is tried again with back-off.
        """
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

    async def _be_connected(self, stop: asyncio.Event) -> None:
        """Be connected once; returns when stop is set and what was there is merged."""
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
        identity = (await read_identity(conn)).identity
        twin = self._board.claim(self._feed, identity)
        if twin is not None:
            raise StoreError(f"zones {twin} and {self._source.zone} are the same database")
        await self._acknowledging.begin(conn, identity)
        shown = self._acknowledging.shown
        self._board.merge_no_floor = max(self._board.merge_no_floor, shown)
        self._standing.begin(identity)
        self._is_careful = False
        self._reachable.set(1)

    async def _follow(self, conn: AnyConnection, listener: Listener, stop: asyncio.Event) -> None:
        while await self._standing.stand(conn, stop):
            is_last_look = stop.is_set()
            began = self._clock.now()
            page = await self._read(conn)
            if page is None:
                continue
            # Not before: one that can be reached but not read is asked ever more rarely, and told of once.
            self._reset_backoff = True
            # What a parked one waits for stays to be seen while it is read on.
            if not self._feed.waits_for:
                self._feed.last_error = ""
            has_more = await self._hand_over(page)
            is_behind = page.batches or has_more or self._feed.waiting
            if not is_behind and self._standing.holds:
                self._feed.drained_at = began
            # A gatherer goes on writing while we stop: what it commits after this look is the next process's.
            if is_last_look and not has_more and await self._let_merge():
                await self._acknowledging.write(conn)
                return
            await self._acknowledging.write_when_due(conn)
            if not has_more:
                await self._pause(listener, stop)

    async def _read(self, conn: AnyConnection) -> Page | None:
        """Read a page; None when the gatherer is unsound.

        At the first fault it is to be read again batch by batch, so that everything sound before it is merged; at the
        second it is quarantined.
        """
        rows = 1 if self._is_careful else self._settings.page_rows
        try:
            async with asyncio.timeout(self._settings.read_s_max):
                return await read_page(conn, self._standing.position, rows)
        except GathererUnsound as fault:
            if not self._is_careful:
                self._is_careful = True
                return None
            detail = f"lane={fault.lane} batch_no={fault.batch_no} {fault.detail}"
        except TimeoutError as error:
            raise StoreUnavailable(f"no page within {self._settings.read_s_max} s") from error
        # The sound pages before the fault; the next admission would throw them away.
        await self._let_merge()
        await self._standing.quarantine(detail)
        self._is_careful = False
        return None

    async def _let_merge(self) -> bool:
        """Wait until what was handed over is merged; False when it has to be read again, or takes too long."""
        end = self._clock.monotonic() + self._settings.read_s_max
        # Rare and short: an event for it would have to be set at every merge.
        while self._feed.waiting and self._standing.holds and self._clock.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(MERGED_POLL_S)
        return self._standing.holds and not self._feed.waiting

    async def _hand_over(self, page: Page) -> bool:
        """Hand a page to the writer if there is anything in it; True when there is likely more to read."""
        behind = sum(max(lane.last - lane.read, 0) for lane in page.lanes)
        self._feed.batches_behind = behind
        self._is_careful = self._is_careful and behind > 0
        delivery = self._standing.deliver(page)
        if delivery is not None:
            await self._board.hand_over(delivery)
        return behind > 0

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
