"""Gatherers whose rows wait for windows that the archiver opens again: asking, watching, letting them go on.

The writer parks a gatherer's feed when its rows lie where production's own are in the archive only. Here its ranges are
asked for, in production and not of the archiver, which we never talk to; the request is repeated while the feed waits,
so that nothing of it is dropped again under its hands. The others are merged meanwhile.

A range that cannot be opened, because an object is missing or wrong, sets the gatherer aside like any batch that cannot
be merged: `readmit --skip-unsound` gives the batch up. When the range is open after all, it is re-admitted by itself.
"""

import asyncio

from libs.runtime.clock import Clock
from libs.store.dropped import Range
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.pool import Connection, Target, connect
from libs.store.reopening_requests import Wanted, readmit_opened, want_open
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board, Feed

log = get_logger(__name__)

APPLICATION = "kalshi-data deduplicator reopening"
POLL_S = 0.5
"""Seconds between two looks while somebody waits; nobody asks otherwise."""
QUARANTINED_POLL_S = 5.0
"""Seconds between two looks whether a gatherer was set aside for a range that is open by now."""


class ReopeningDesk:
    """Asks for what parked feeds wait for, and lets them go on."""

    def __init__(self, board: Board, production: Target, clock: Clock, metrics: Metrics) -> None:
        self._board = board
        self._production = production
        self._clock = clock
        self._waits = metrics.gatherer_reopening
        self._said: dict[str, str] = {}
        self._looked_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Look until stop; production away is waited out."""
        for zone in self._board.feeds:
            self._waits.labels(gatherer=zone).set(0)
        while not stop.is_set():
            try:
                await self.look_once()
            except (StoreUnavailable, SchemaMismatch) as error:
                log.warning("reopening_not_asked", error=str(error))
            if any(feed.waits_for for feed in self._board.feeds.values()):
                await first_of(stop, timeout_s=POLL_S)
            else:
                self._board.parked.clear()
                await first_of(self._board.parked, stop, timeout_s=QUARANTINED_POLL_S)

    async def look_once(self) -> None:
        """Repeat every request, and let go on whoever has all that it waits for, or cannot have it.

        Raises:
            StoreUnavailable: production is away.
        """
        feeds = [feed for feed in self._board.feeds.values() if feed.waits_for]
        now = self._clock.monotonic()
        is_aside = any(feed.status == "quarantined" for feed in self._board.feeds.values())
        is_aside = is_aside and now - self._looked_at >= QUARANTINED_POLL_S
        if feeds or is_aside:
            async with connect(self._production, APPLICATION) as conn:
                if is_aside:
                    self._looked_at = now
                    await _readmit(conn)
                wanted = {one for feed in feeds for one in feed.waits_for}
                found = {one.range: one for one in await want_open(conn, wanted)}
                for feed in feeds:
                    self._judge(feed, found)
        for feed in self._board.feeds.values():
            self._waits.labels(gatherer=feed.zone).set(len(feed.waits_for))

    def _judge(self, feed: Feed, found: dict[Range, Wanted]) -> None:
        # It may have been parked anew, or read anew, while production was asked.
        if not set(feed.waits_for) <= found.keys() or not feed.waits_for:
            return
        standing = [found[one] for one in feed.waits_for]
        closed = [one for one in standing if one.state != "open"]
        if not closed or any(one.state == "failed" for one in closed):
            log.info("reopening_ended", gatherer=feed.zone, open=not closed)
            self._said.pop(feed.zone, None)
            self._board.unpark(feed)
            return
        text = ", ".join(f"{one.range} ({one.detail or one.state})" for one in closed[:3])
        feed.last_error = f"waits until {len(closed)} ranges are open again: {text}"
        if self._said.get(feed.zone) != feed.last_error:
            self._said[feed.zone] = feed.last_error
            log.warning("gatherer_waits_for_reopening", gatherer=feed.zone, waits_for=text)


async def _readmit(conn: Connection) -> None:
    for gatherer in await readmit_opened(conn):
        log.warning("gatherer_readmitted_as_ranges_are_open", number=gatherer)
