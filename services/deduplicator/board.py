"""Where readers and the writer meet: bounded hand-off, one generation of cursors, and what each gatherer's state is.

Everything a reader hands over bears the generation and the session of the cursors it was read with. When the writer
must begin anew, the generation rises; when one gatherer is read anew (a new connection, perhaps another database), its
session does. Pages of an old one are thrown away, and reading starts again from production's cursors.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from libs.store.dropped import Range
from libs.store.errors import StoreUnavailable
from libs.store.pages import ReadBatch
from services.deduplicator.merge import Arrival, Reading, micros

Status = Literal["waiting", "reading", "reopening", "quarantined", "away", "refused"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One page on its way to the writer: of which zone, and which gatherer that zone was when it was read.

    rows: how many it holds. pages: 0 for a part of a page.
    """

    feed: "Feed"
    generation: int
    session: int
    gatherer: int
    batches: list[ReadBatch]
    readings: dict[UUID, Reading]
    rows: int
    pages: int = 1

    @property
    def arrival(self) -> Arrival:
        """What the merge room needs of it."""
        return Arrival(self.gatherer, self.batches, self.readings)


@dataclass(slots=True)
class Feed:
    """One gatherer as its reader and the writer see it.

    merged: lane -> (batch_no, merge_no), what this process merged. merged_at: committed_at of the newest merged batch.
    drained_at: when a look into the ledger began that found nothing new while everything before was merged. All times
    are microseconds. session: rises when what was read before is not to be merged any more. waiting: pages of this
    session handed over and not merged. waits_for: ranges of production that are to be opened again before anything of it
    is merged (parked). held: pages taken before that. is_given_up: the process stops while it is parked.
    """

    zone: str
    pages: asyncio.Queue[Delivery]
    status: Status = "waiting"
    gatherer: int | None = None
    identity: UUID | None = None
    last_error: str = ""
    merged: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    merged_at: int | None = None
    drained_at: int | None = None
    batches_behind: int = 0
    session: int = 0
    waiting: int = 0
    rows_read: int = 0
    releases: Mapping[UUID, tuple[int, int]] = field(default_factory=dict)
    is_done: bool = False
    waits_for: tuple[Range, ...] = ()
    held: deque[Delivery] = field(default_factory=deque)
    is_given_up: bool = False

    def next_page(self) -> Delivery | None:
        """Take the page that is to be merged next; None when there is none, or none may be."""
        if self.waits_for:
            return None
        if self.held:
            return self.held.popleft()
        return self.pages.get_nowait() if self.pages.qsize() else None


class Board:
    """The feeds of all zones and the writer's standing.

    Attributes:
        ready: set while the writer holds production and readers may read.
        arrived: set when there is something for the writer to do.
        parked: set when a feed was parked.
        merge_no_floor: the largest merge_no any gatherer has shown.
    """

    def __init__(self, zones: list[str], *, pages_ahead: int) -> None:
        self.feeds = {zone: Feed(zone, asyncio.Queue(maxsize=pages_ahead)) for zone in zones}
        self.generation = 0
        self.ready = asyncio.Event()
        self.arrived = asyncio.Event()
        self.parked = asyncio.Event()
        self.merge_no_floor = 0
        self.is_doubted = False

    def begin_anew(self) -> None:
        """Throw away what was read with the old cursors; readers wait for the writer's next standing."""
        self.ready.clear()
        self.generation += 1
        self.is_doubted = False
        for feed in self.feeds.values():
            self.drop(feed)
            feed.merged = {}

    def drop(self, feed: Feed) -> int:
        """Throw away what was read of one gatherer and is not merged; return the number of its next session."""
        while not feed.pages.empty():
            feed.pages.get_nowait()
        feed.held.clear()
        feed.waits_for = ()
        feed.waiting = 0
        feed.drained_at = None
        feed.session += 1
        return feed.session

    def is_current(self, delivery: Delivery) -> bool:
        """True while the cursors a page was read with are those to go on from."""
        is_same = delivery.generation == self.generation
        return is_same and delivery.session == delivery.feed.session

    def doubt(self) -> None:
        """Something else than a merge met a changed production: the writer must begin anew."""
        self.is_doubted = True
        self.arrived.set()

    def claim(self, feed: Feed, identity: UUID) -> str | None:
        """Note which database a zone is; return the zone that has the same one, which would be a mistake."""
        for other in self.feeds.values():
            if other is not feed and other.identity == identity:
                return other.zone
        feed.identity = identity
        return None

    def park(self, pages: Sequence[Delivery], ranges: Sequence[Range]) -> None:
        """Keep the pages of one gatherer, and whatever comes after them, until these ranges are open."""
        feed = pages[0].feed
        feed.held.extendleft(reversed(pages))
        feed.waits_for = tuple(ranges)
        feed.last_error = f"waits until {len(ranges)} ranges are open again: {ranges[0]} ..."
        if feed.status == "reading":
            feed.status = "reopening"
        self.parked.set()
        self.arrived.set()

    def unpark(self, feed: Feed) -> None:
        """Its ranges are open, or will not be: merge on, in the order it came."""
        feed.waits_for, feed.last_error = (), ""
        if feed.status == "reopening":
            feed.status = "reading"
        self.arrived.set()

    def give_up_parked(self) -> None:
        """The process stops: what is parked is read again by the next one; its reader may end."""
        for feed in self.feeds.values():
            if feed.waits_for:
                feed.is_given_up = True
                self.drop(feed)

    async def hand_over(self, delivery: Delivery) -> None:
        """Give a page to the writer; waits while too many of this gatherer are waiting.

        Raises:
            StoreUnavailable: nothing of it is merged before the stop.
        """
        feed = delivery.feed
        if feed.is_given_up:
            raise StoreUnavailable("production's windows that it needs are not open yet")
        if self.is_current(delivery):
            feed.waiting += 1
            feed.drained_at = None
        await feed.pages.put(delivery)
        self.arrived.set()

    def take(self, rows_max: int) -> list[Delivery]:
        """Take pages fairly, one of each gatherer in turn, until they hold rows_max rows or none is left."""
        taken: list[Delivery] = []
        rows = 0
        while rows < rows_max:
            pages = [feed.next_page() for feed in self.feeds.values()]
            found = [page for page in pages if page is not None]
            current = [page for page in found if self.is_current(page)]
            taken += current
            rows += sum(page.rows for page in current)
            if not found:
                break
        return taken

    def note_merged(self, delivery: Delivery, merge_no: int) -> None:
        """A page's transaction is committed under this number."""
        feed = delivery.feed
        feed.rows_read += delivery.rows
        if self.is_current(delivery):
            feed.waiting -= delivery.pages
        if feed.gatherer != delivery.gatherer:
            return  # the zone is another database by now, which knows nothing of these lanes
        for lane, reading in delivery.readings.items():
            feed.merged[lane] = (reading.batch_no, merge_no)
        newest = max((micros(batch.committed_at) for batch in delivery.batches), default=0)
        feed.merged_at = max(feed.merged_at or 0, newest) or None

    @property
    def is_done(self) -> bool:
        """True when every reader has ended and nothing is left to merge."""
        feeds = self.feeds.values()
        return all(feed.is_done and feed.pages.empty() and not feed.held for feed in feeds)

    @property
    def drained_at(self) -> int | None:
        """The moment up to which every gatherer's ledger is merged; None while one is behind or away."""
        moments = [feed.drained_at for feed in self.feeds.values()]
        known = [moment for moment in moments if moment is not None]
        return min(known) if len(known) == len(moments) else None
