"""One listed market as it stands now: book, ticker, and the state its REST object shows."""

from collections.abc import Iterator
from itertools import islice

from libs.marketdata.units import PRICE_ONE, SECOND
from services.simulator.book import Book, Ladder
from services.simulator.changes import Delta, Lifecycle, Ticker, TickerState
from services.simulator.instruments import Event, Instrument

_NOTHING_YET = TickerState(0, 0, PRICE_ONE, 0, 0, 0, 0, 0, 0, 0)


class Listing:
    """State of one market; times in microseconds since 1970, None for what has not happened."""

    __slots__ = (
        "book", "changed_at", "close_at", "determined_at", "instrument", "is_deactivated", "last_ticker",
        "position", "result", "settled_at", "updated_at",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, yes: Ladder = (), no: Ladder = ()) -> None:
        self.instrument = instrument
        self.book = Book(yes, no)
        self.position = 0
        """Number of deltas so far."""
        self.changed_at: int | None = None
        """exchange_ts of the last delta (whole milliseconds)."""
        self.last_ticker: Ticker | None = None
        self.close_at = instrument.close_at
        self.updated_at = instrument.created_at
        self.is_deactivated = False
        self.result = ""
        self.determined_at: int | None = None
        self.settled_at: int | None = None

    @property
    def state(self) -> TickerState:
        return self.last_ticker.state if self.last_ticker is not None else _NOTHING_YET

    def apply(self, delta: Delta) -> None:
        self.book.apply(delta.side, delta.price, delta.size_delta)
        self.position = delta.position
        self.changed_at = delta.at - delta.at % 1000

    def follow(self, change: Lifecycle) -> None:
        """Take over what a lifecycle message says."""
        self.updated_at = change.at
        if change.event_type in ("activated", "deactivated"):
            self.is_deactivated = change.event_type == "deactivated"
        elif change.event_type == "determined":
            self.determined_at = change.at
            self.result = str(change.body["result"])
        elif change.event_type == "settled":
            self.settled_at = change.at
        elif change.event_type == "close_date_updated":
            close_ts = change.body["close_ts"]
            assert isinstance(close_ts, int)
            self.close_at = close_ts * SECOND

    def status(self, now: int) -> str:
        """Return the status the REST object shows at this time of the exchange."""
        if self.settled_at is not None:
            return "finalized"
        if self.determined_at is not None:
            return "determined"
        if now >= self.close_at:
            return "closed"
        if now < self.instrument.open_at:
            return "initialized"
        return "inactive" if self.is_deactivated else "active"

    def book_record(self) -> dict[str, object]:
        """Return the book as the control interface and the journal show it: integers in our units."""
        return {
            "ticker": self.instrument.ticker,
            "yes": self.book.ladder(True),
            "no": self.book.ladder(False),
            "exchange_ts": self.changed_at,
            "position": self.position,
        }


class Listings(dict[str, Listing]):
    """Every listed market by its ticker, in the order they were listed."""

    def after(self, position: int) -> Iterator[tuple[int, Listing]]:
        """Yield (position, listing) from this position on; a market keeps its position for ever."""
        return enumerate(islice(self.values(), position, None), position)


class Events(dict[str, Event]):
    """Every event by its ticker, in the order they were made."""

    def after(self, position: int) -> Iterator[tuple[int, Event]]:
        """Yield (position, event) from this position on; an event keeps its position for ever."""
        return enumerate(islice(self.values(), position, None), position)
