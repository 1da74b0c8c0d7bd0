"""What one gatherer's database is told of merging: how far each lane is merged, and what retention may forget.

It also remembers what it has written: a database that shows less than that is an older copy of itself.
"""

from uuid import UUID

from libs.runtime.clock import Clock
from libs.store.acknowledgements import (
    read_acknowledged_merge_no,
    write_acknowledgements,
    write_releases,
)
from libs.store.pool import AnyConnection
from services.deduplicator.board import Feed


class Acknowledging:
    """Writes what is new of a feed, at most every ack_s seconds.

    Attributes:
        shown: the largest merge_no that the database showed when it was asked.
        lost: the one that was written to it before and that it did not show then; 0 for none, or when that was told of.
    """

    def __init__(self, feed: Feed, clock: Clock, ack_s: float) -> None:
        self._feed = feed
        self._clock = clock
        self._ack_s = ack_s
        self._identity: UUID | None = None
        self._acknowledged: dict[UUID, tuple[int, int]] = {}
        self._released: dict[UUID, tuple[int, int]] = {}
        self._written = 0
        self._written_at = 0.0
        self.shown = self.lost = 0

    async def begin(self, conn: AnyConnection, identity: UUID) -> None:
        """Learn what this database shows; whatever was written on an older connection is written again."""
        self.shown = await read_acknowledged_merge_no(conn)
        if identity != self._identity:
            self._identity, self._written, self.lost = identity, 0, 0
        if self._written > self.shown:
            self.lost = self._written
        self._written = self.shown
        self._acknowledged, self._released = {}, {}

    async def write(self, conn: AnyConnection) -> None:
        """Write back what is new."""
        merged, releases = self._feed.merged, self._feed.releases
        news = {lane: mark for lane, mark in merged.items() if self._acknowledged.get(lane) != mark}
        self._written = max(self._written, await write_acknowledgements(conn, news))
        self._acknowledged |= news
        news = {lane: mark for lane, mark in releases.items() if self._released.get(lane) != mark}
        await write_releases(conn, news)
        self._released |= news
        self._written_at = self._clock.monotonic()

    async def write_when_due(self, conn: AnyConnection) -> None:
        """Write back what is new unless that was done just now."""
        if self._clock.monotonic() - self._written_at >= self._ack_s:
            await self.write(conn)
