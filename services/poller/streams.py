"""Which stream's deltas a REST book is compared with, and from which book on: what was proved to be heard. Pure.

A stream is taken when frames without a hole reach from the base to beyond the window and no closing lies between. When in
doubt there is no stream: an unknown costs nothing, a wrong disagreement costs somebody's morning.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from libs.marketdata.listening import Sid, Span
from libs.marketdata.rebuild import Levels, levels_of
from libs.marketdata.units import SECOND
from libs.store.book_checks import Island, Opening, Stream, WsBook
from services.poller.agreement import Base

SLACK: Final = 60 * SECOND
"""A delta of a stream is not older than the frame before it by more, microseconds."""


class Look(NamedTuple):
    """One market's book as REST answered it; times by our clock, microseconds."""

    ticker: str
    requested_at: int
    received_at: int
    levels: Levels


class Patience(NamedTuple):
    """stale: how old an answer may be. skew: how far clocks may be apart. Microseconds."""

    stale: int
    skew: int

    def window(self, look: Look) -> Span:
        """Return when the answer was made at the earliest and at the latest, exchange time."""
        return look.requested_at - self.stale - self.skew, look.received_at + self.skew


class Chosen(NamedTuple):
    """A stream that was heard, and the base its book is rebuilt from; base_at: when that was observed."""

    stream: Stream
    base: Base
    kind: str
    base_at: int


class Heard(NamedTuple):
    """What the database says of the sids in question; closings: the last one's seq by (ticker or None, *sid)."""

    islands: Mapping[Sid, Sequence[Island]]
    reopenings: Mapping[Sid, Opening]
    closings: Mapping[tuple[str | None, UUID, int], int]


def by_sid(islands: Iterable[Island]) -> dict[Sid, list[Island]]:
    """Group joined ranges by sid."""
    found: dict[Sid, list[Island]] = {}
    for island in islands:
        found.setdefault((island.connection, island.sid), []).append(island)
    return found


def from_socket(book: WsBook, window: Span, heard: Heard) -> Chosen | None:
    """Return the stream that a book of the socket stands in, if it was heard from that book to the window's end."""
    sid = (book.connection, book.sid)
    if any(heard.closings.get((name, *sid), -1) >= book.seq for name in (book.ticker, None)):
        return None
    for island in heard.islands.get(sid, ()):
        if (
            island.seq_from <= book.seq + 1
            and reaches(island, window[1])
            and book.seq <= island.seq_to
        ):
            since = book.observed_at - SLACK
            stream = Stream(book.ticker, *sid, book.seq, island.seq_to, since)
            base = Base(levels_of(book.yes, book.no), None)
            return Chosen(stream, base, "ws", book.observed_at)
    return None


def from_rest(
    opening: Opening, earlier: Look, start: Span, window: Span, heard: Heard
) -> Chosen | None:
    """Return the stream of an opening, if it was heard from an earlier answer's window `start` to this one's end."""
    sid = (opening.connection, opening.sid)
    if heard.closings.get((opening.ticker, *sid), -1) >= opening.seq:
        return None
    begins = opening
    if heard.closings.get((None, *sid), -1) >= opening.seq:
        again = heard.reopenings.get(sid)
        if again is None or again.seq <= heard.closings[None, *sid]:
            return None
        begins = again
    if begins.sent_at + begins.margin > start[0]:
        return None
    for island in heard.islands.get(sid, ()):
        if island.sent_from <= start[0] - SECOND and reaches(island, window[1]):
            stream = Stream(earlier.ticker, *sid, island.seq_from - 1, island.seq_to, start[0])
            return Chosen(stream, Base(earlier.levels, start), "rest", earlier.received_at)
    return None


def reaches(island: Island, until: int) -> bool:
    """True when these frames prove what was heard up to that time, microseconds."""
    return island.sent_to - island.margin >= until
