"""What is looked after beside the merging: partitions, cursor copies, releases, an end of old records."""

import asyncio

from libs.runtime.clock import Clock
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.merge_errors import WriterStopped
from libs.store.merge_records import forget_merges
from libs.store.merger import ProductionWriter
from libs.store.partitions import ensure_partitions
from libs.store.pool import Target, connect
from libs.store.summaries import Summaries
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board
from services.deduplicator.default_alarm import DefaultAlarm
from services.deduplicator.partitions import PartitionKeeper
from services.deduplicator.settings import DeduplicatorSettings

log = get_logger(__name__)

APPLICATION = "kalshi-data deduplicator"
SUMMARIES_S = 1.0
"""Seconds between two summaries: a second's rows cost a search nothing, a minute's do."""
MERGES_KEPT_S = 30 * 86_400.0
"""Seconds a row of `merges` is kept: it only tells of the past, and there are ten a second."""


class Housekeeping:
    """Partitions ahead, copies of the cursors, releases, an end of old records; every look is cheap and may fail."""

    def __init__(
        self,
        board: Board,
        writer: ProductionWriter,
        production: Target,
        settings: DeduplicatorSettings,
        clock: Clock,
        partitions: PartitionKeeper,
        metrics: Metrics,
    ) -> None:
        self._board = board
        self._writer = writer
        self._production = production
        self._settings = settings
        self._clock = clock
        self._partitions = partitions
        self._alarm = DefaultAlarm(metrics)

    async def run(self, stop: asyncio.Event) -> None:
        """Look after production until stop."""
        while not stop.is_set():
            await first_of(self._board.ready, stop)
            if stop.is_set():
                return
            try:
                await self.keep_partitions_once()
                await self.release_once()
                await self.forget_once()
            except (StoreUnavailable, SchemaMismatch) as error:
                log.warning("housekeeping_failed", error=str(error))
            except WriterStopped:
                self._board.doubt()
            pause = min(self._settings.housekeeping_s, self._settings.cursor_copy_s)
            await first_of(stop, timeout_s=pause)

    async def keep_partitions_once(self) -> None:
        """Create partitions ahead; rows in a default partition are an alarm, never a stop."""
        async with connect(self._production, APPLICATION) as conn:
            ensured = await ensure_partitions(conn, "production", self._clock.now())
            await self._alarm.note(conn, ensured.default_rows)
        self._partitions.forget()
        await self._partitions.make_for(())

    async def forget_once(self) -> None:
        """Keep what only tells of the past bounded."""
        async with connect(self._production, APPLICATION) as conn:
            await forget_merges(conn, MERGES_KEPT_S)

    async def run_summaries(self, stop: asyncio.Event) -> None:
        """Keep rows findable by merge_no while they are new, once a second, until stop."""
        while not stop.is_set():
            await first_of(self._board.ready, stop)
            try:
                async with connect(self._production, APPLICATION) as conn:
                    summaries = Summaries("merge_no")
                    while not stop.is_set():
                        await summaries.keep_up(conn)
                        await first_of(stop, timeout_s=SUMMARIES_S)
            except (StoreUnavailable, SchemaMismatch) as error:
                log.warning("housekeeping_failed", error=str(error))
                await first_of(stop, timeout_s=self._settings.backoff_s_max)

    async def release_once(self) -> None:
        """Copy the cursors when a copy is due, and put the releases of the old enough one on the board."""
        age = self._settings.release_after_s
        await self._writer.copy_cursors(self._settings.cursor_copy_s, age)
        releasable = await self._writer.releasable(age)
        for feed in self._board.feeds.values():
            if feed.gatherer is not None:
                feed.releases = releasable.get(feed.gatherer, {})
