"""Where one gatherer is read from: production's cursors, and whether it may be read at all.

A reader's position runs ahead of the cursors within one generation of the writer and one session of the gatherer. When
either is over, it starts again from production. Then it also shows whether this database still holds what was merged
of it: one that does not is an older copy of itself. Its facts need nothing of us (its writers leave such lanes, and a
(lane, number) never has two contents), but an operator must know of it.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from libs.store.acknowledgements import LostLane, find_lost, find_unknown
from libs.store.errors import StoreUnavailable
from libs.store.merge_transaction import Admission, EventRow
from libs.store.merger import ProductionWriter
from libs.store.pages import Page, read_identity
from libs.store.pool import AnyConnection
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.acknowledging import Acknowledging
from services.deduplicator.board import Board, Delivery, Feed, Status
from services.deduplicator.merge import Reading

log = get_logger(__name__)

READMISSION_POLL_S = 1.0
LANES_NAMED = 3
"""Lanes that an event names; the rest is counted."""


class Standing:
    """One zone's position and what production says of it.

    Attributes:
        position: lane -> last number read.
    """

    def __init__(
        self,
        feed: Feed,
        board: Board,
        writer: ProductionWriter,
        acknowledging: Acknowledging,
        release_after_s: float,
        metrics: Metrics,
    ) -> None:
        self._feed = feed
        self._board = board
        self._writer = writer
        self._acknowledging = acknowledging
        self._release_after_s = release_after_s
        self._quarantined = metrics.gatherer_quarantined.labels(gatherer=feed.zone)
        self._changes = metrics.gatherer_database_changes_total
        self._generation = self._session = -1
        self._identity: UUID
        self.position: dict[UUID, int] = {}
        self._log = log.bind(gatherer=feed.zone)

    @property
    def holds(self) -> bool:
        """True while the position goes on from production's cursors."""
        return (self._generation, self._session) == (self._board.generation, self._feed.session)

    def begin(self, identity: UUID) -> None:
        """A new connection to the database of this identity."""
        self._identity, self._session = identity, -1

    async def stand(self, conn: AnyConnection, stop: asyncio.Event) -> bool:
        """Start from production's cursors whenever those we have may be others; False when stop came meanwhile.

        Raises:
            StoreUnavailable: the gatherer is away, or another database than it was.
            WriterStopped: the writer begins anew.
        """
        while True:
            while not self._board.ready.is_set():
                self._feed.status = "waiting"
                if stop.is_set():
                    return False
                await first_of(self._board.ready, stop)
            if self.holds:
                return True
            admission = await self._admit()
            await self._tell_changes(conn, admission)
            await self._forget_lanes(conn, admission)
            if admission.status == "quarantined":
                self._set_quarantined(admission.detail)
                await self._wait_readmitted(conn, admission.gatherer, stop)
                self._session = -1
                if stop.is_set():
                    return False

    async def quarantine(self, detail: str) -> None:
        """Set this gatherer aside; the next `stand` waits for its re-admission."""
        assert self._feed.gatherer is not None
        await self._writer.quarantine(self._feed.gatherer, detail)
        self._session = -1

    def deliver(self, page: Page) -> Delivery | None:
        """Return what this page brings, and go on behind it; None when it brings nothing."""
        readings = {
            lane.lane: Reading(lane.read, str(lane.family))
            for lane in page.lanes
            if lane.read > self.position.get(lane.lane, 0)
        }
        if not readings:
            return None
        for lane, reading in readings.items():
            self.position[lane] = reading.batch_no
        assert self._feed.gatherer is not None
        rows = sum(len(rows) for batch in page.batches for rows in batch.rows.values())
        return Delivery(
            self._feed, self._generation, self._session, self._feed.gatherer, page.batches, readings,
            rows,
        )  # fmt: skip

    async def _admit(self) -> Admission:
        """Read production's cursors. What is waiting was read from older ones and would turn them back: drop it first.

        What the writer has taken already is committed before it answers us.
        """
        self._generation = self._board.generation
        self._session = self._board.drop(self._feed)
        admission = await self._writer.admit(self._identity, self._feed.zone)
        if admission.gatherer != self._feed.gatherer:
            self._feed.merged, self._feed.releases = {}, {}
        self._feed.gatherer = admission.gatherer
        self.position = dict(admission.cursors)
        self._set_status("reading")
        return admission

    async def _tell_changes(self, conn: AnyConnection, admission: Admission) -> None:
        """Tell once, by log, metric and event row, of a database that is not the one it was."""
        if admission.is_new:
            self._log.warning("gatherer_admitted", identity=str(self._identity))
        if admission.has_replaced:
            self._changes.labels(gatherer=self._feed.zone, change="new_identity").inc()
        lost = await find_lost(
            conn,
            {lane: self.position[lane] for lane in admission.untold},
            {lane for lane, age_s in admission.untold.items() if age_s < self._release_after_s},
        )
        acknowledged = self._acknowledging.lost
        if not lost and not acknowledged:
            return
        detail = _describe(lost, self._acknowledging.shown, acknowledged)
        self._log.error("gatherer_went_back", detail=detail)
        await self._writer.record(EventRow("gatherer_went_back", admission.gatherer, detail))
        self._changes.labels(gatherer=self._feed.zone, change="restored").inc()
        self._acknowledging.lost = 0

    async def _forget_lanes(self, conn: AnyConnection, admission: Admission) -> None:
        """Let the cursors go of lanes that this database has deleted long ago."""
        gone = await find_unknown(conn, admission.old)
        if gone:
            await self._writer.forget_cursors(admission.gatherer, gone)
            self._log.info("cursors_forgotten", lanes=len(gone))

    async def _wait_readmitted(
        self, conn: AnyConnection, gatherer: int, stop: asyncio.Event
    ) -> None:
        """Ask until an operator has re-admitted this gatherer, it is another database, or the writer begins anew."""
        while not stop.is_set():
            await first_of(stop, timeout_s=READMISSION_POLL_S)
            if not self._board.ready.is_set():
                return
            if (await read_identity(conn)).identity != self._identity:
                raise StoreUnavailable("the quarantined database has given way to another one")
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


def _describe(lost: Sequence[LostLane], shown: int, acknowledged: int) -> str:
    """Say by what an older copy was known."""
    said = [
        f"lane {lane.lane} ends at {lane.last}, {lane.merged} was merged"
        if lane.is_known
        else f"lane {lane.lane} is unknown, {lane.merged} was merged"
        for lane in lost[:LANES_NAMED]
    ]
    if len(lost) > LANES_NAMED:
        said.append(f"{len(lost) - LANES_NAMED} more lanes")
    if acknowledged:
        said.append(f"merge_no {acknowledged} was acknowledged, it shows {shown}")
    return "; ".join(said)
