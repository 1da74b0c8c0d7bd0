"""The writer's loop and its single turns."""

import asyncio
from collections import Counter
from dataclasses import replace

from libs.flow.backoff import Backoff
from libs.runtime.clock import Clock
from libs.store.dropped import RangesDropped
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.merge_errors import RowsRefused, WriterStopped
from libs.store.merge_transaction import Merged
from libs.store.merger import ProductionWriter
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board, Delivery
from services.deduplicator.merge import MergeRoom, Plan, Reading
from services.deduplicator.partitions import PartitionKeeper, hours_of
from services.deduplicator.settings import DeduplicatorSettings

log = get_logger(__name__)

TAKE_OVER_POLL_S = 1.0
"""Seconds between two attempts to have production at most: a dead writer's successor comes that long after its lease."""


class Merging:
    """The one writer: takes what the readers bring, commits it, and begins anew whenever production says so.

    Attributes:
        inserted, duplicates: rows by table since this process started.
        conflicts, disagreements, merges: likewise.
    """

    def __init__(
        self,
        board: Board,
        writer: ProductionWriter,
        settings: DeduplicatorSettings,
        clock: Clock,
        metrics: Metrics,
        partitions: PartitionKeeper | None = None,
    ) -> None:
        self._board = board
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._partitions = partitions
        self._room = MergeRoom(
            horizon_s=settings.horizon_s,
            identities_max=settings.identities_max,
            agreement_sample=settings.agreement_sample,
        )
        self._touched_at = 0.0
        self.waiting_for = "production"
        self.inserted: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.conflicts = 0
        self.disagreements = 0
        self.merges = 0

    @property
    def room(self) -> MergeRoom:
        """What is remembered of the facts that were merged."""
        return self._room

    @property
    def identities(self) -> int:
        """Identities remembered."""
        return self._room.identities

    async def run(self, stop: asyncio.Event) -> None:
        """Merge until every reader has ended after stop; what was handed over by then is merged."""
        while not self._board.is_done or not stop.is_set():
            try:
                if not self._board.ready.is_set() and not await self.begin_anew(stop):
                    return
                if stop.is_set():
                    self._board.give_up_parked()
                if not await self.merge_once():
                    await self._idle()
            except WriterStopped as error:
                log.warning("writer_stopped", reason=str(error))
                self._board.begin_anew()

    async def begin_anew(self, stop: asyncio.Event) -> bool:
        """Take production over, forgetting everything; False when stop came while it was away or another's."""
        self._board.begin_anew()
        self._room.forget()
        backoff = Backoff(self._settings.backoff_s_min, self._settings.backoff_s_max)
        said = ""
        while True:
            try:
                standing = await self._writer.take_over(self._board.merge_no_floor)
                self.waiting_for = "the lease of another deduplicator"
            except (StoreUnavailable, SchemaMismatch) as error:
                standing, self.waiting_for = None, f"production: {error}"
            if standing is not None:
                self.waiting_for = ""
                self._touched_at = self._clock.monotonic()
                log.info("took_over", epoch=standing.epoch, merge_no=standing.merge_no)
                self._board.ready.set()
                return True
            if self.waiting_for != said:
                said = self.waiting_for
                log.warning("waiting", waiting_for=said)
            if stop.is_set():
                return False
            await first_of(stop, timeout_s=min(backoff.next_delay(), TAKE_OVER_POLL_S))

    async def merge_once(self) -> bool:
        """Merge what has arrived in one transaction; False when nothing has.

        Rows that production refuses are traced to their batch: its gatherer is set aside, the others go on.

        Raises:
            WriterFenced, HistoryChanged: begin anew.
        """
        if self._board.is_doubted:
            self._board.begin_anew()
            return True
        self._board.arrived.clear()
        deliveries = self._board.take(self._settings.transaction_rows)
        if not deliveries:
            return False
        if self._partitions is not None:
            batches = [batch.rows for page in deliveries for batch in page.batches]
            await self._partitions.make_for(set().union(*map(hours_of, batches)))
        try:
            await self._merge(deliveries)
        except RowsRefused as refused:
            log.warning("rows_refused", reason=str(refused))
            await self._merge_apart(deliveries)
        return True

    async def _merge(self, deliveries: list[Delivery]) -> None:
        """Merge these in one transaction. Raises RowsRefused too, and is then as before."""
        plan = self._room.plan([delivery.arrival for delivery in deliveries])
        plan.transaction.merge_no_floor = self._board.merge_no_floor
        began = self._clock.monotonic()
        try:
            merged = await self._writer.merge(plan.transaction)
        except RowsRefused:
            self._room.abandon()
            raise
        self._room.confirm(merged, self._clock.now())
        for delivery in deliveries:
            self._board.note_merged(delivery, merged.merge_no)
        self._touched_at = self._clock.monotonic()
        self._metrics.merge_seconds.observe(self._touched_at - began)
        self._count(deliveries, plan, merged)

    async def _merge_apart(self, deliveries: list[Delivery]) -> None:
        """Merge each gatherer's pages in a transaction of their own, and batch by batch those that are refused again."""
        for feed in self._board.feeds.values():
            own = [
                page for page in deliveries if page.feed is feed and self._board.is_current(page)
            ]
            try:
                if own:
                    await self._merge(own)
            except RowsRefused as refused:
                if not self._park(own, refused):
                    await self._merge_by_batch(own)

    async def _merge_by_batch(self, pages: list[Delivery]) -> None:
        """Merge what is sound before the refused batch, and set its gatherer aside with the batch named."""
        parts = [part for page in pages for part in _parts(page)]
        for number, part in enumerate(parts):
            if not self._board.is_current(part):
                return  # it is read again from where it stands
            try:
                await self._merge([part])
            except RowsRefused as refused:
                if self._park(parts[number:], refused):
                    return
                (batch,) = part.batches
                detail = f"lane={batch.lane} batch_no={batch.batch_no} {refused}"
                self._board.drop(part.feed)
                await self._writer.quarantine(part.gatherer, detail)
                return

    def _park(self, pages: list[Delivery], refused: RowsRefused) -> bool:
        """Let one gatherer's pages wait when they only come too early: their ranges may yet be opened again."""
        if not isinstance(refused, RangesDropped) or refused.failed:
            return False
        self._board.park(pages, refused.ranges)
        return True

    async def _idle(self) -> None:
        """Wait for pages; keep the lease meanwhile."""
        renew_s = self._settings.lease_s / 4
        await first_of(self._board.arrived, timeout_s=renew_s)
        if self._clock.monotonic() - self._touched_at >= renew_s:
            await self._writer.renew()
            self._touched_at = self._clock.monotonic()

    def _count(self, deliveries: list[Delivery], plan: Plan, merged: Merged) -> None:
        duplicates = plan.duplicates(merged)
        self.inserted.update(merged.inserted)
        self.duplicates.update(duplicates)
        self.conflicts += len(merged.conflicts)
        self.disagreements += plan.disagreements
        self.merges += 1
        metrics = self._metrics
        for name, rows in merged.inserted.items():
            metrics.merge_rows_inserted_total.labels(table=name).inc(rows)
        for name, rows in duplicates.items():
            metrics.merge_duplicates_total.labels(table=name).inc(max(rows, 0))
        metrics.merge_conflicts_total.inc(len(merged.conflicts))
        metrics.stream_disagreements_total.inc(plan.disagreements)
        self._count_reading(deliveries)
        if merged.conflicts:
            log.warning(
                "trade_conflicts", count=len(merged.conflicts), first=str(merged.conflicts[0])
            )
        if plan.disagreements:
            log.warning("streams_disagree", count=plan.disagreements)
        if plan.far:
            log.warning("far_exchange_ts", **plan.far)
        if plan.dropped_batches:
            log.warning("dropped_at_gatherer", batches=plan.dropped_batches)

    def _count_reading(self, deliveries: list[Delivery]) -> None:
        rows: Counter[tuple[str, str]] = Counter()
        for delivery in deliveries:
            feed = delivery.feed
            for batch in delivery.batches:
                for name, found in batch.rows.items():
                    rows[feed.zone, name] += len(found)
            if feed.merged_at is not None:
                lag = (self._clock.now() - feed.merged_at) / 1e6
                self._metrics.merge_lag_seconds.labels(gatherer=feed.zone).set(lag)
        for (zone, name), count in rows.items():
            self._metrics.merge_rows_read_total.labels(gatherer=zone, table=name).inc(count)


def _parts(page: Delivery) -> list[Delivery]:
    """Return a page batch by batch, and at last what is left of it: how far its lanes were read."""
    batches = [
        replace(
            page,
            batches=[batch],
            readings={batch.lane: Reading(batch.batch_no, str(batch.family))},
            rows=sum(map(len, batch.rows.values())),
            pages=0,
        )
        for batch in page.batches
    ]
    return [*batches, replace(page, batches=[], rows=0)]
