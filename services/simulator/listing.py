"""One listed market as it stands now: book, ticker, and the state its REST object shows."""

from libs.marketdata.units import PRICE_ONE, SECOND
from services.simulator.book import Book, Ladder
from services.simulator.catalogue import Catalogue
from services.simulator.changes import Delta, Lifecycle, Ticker, TickerState
from services.simulator.instruments import STRUCTURES, Instrument


class Listing:
    """State of one market; times in microseconds since 1970, None for what has not happened.

    Args:
        opening: where the book comes from when somebody looks at it for the first time; given instead of ladders.
    """

    __slots__ = (
        "_book", "_opening", "changed_at", "close_at", "determined_at", "instrument", "is_deactivated", "last_ticker",
        "position", "result", "settled_at", "structure", "sub_title", "updated_at",
    )  # fmt: skip

    def __init__(
        self,
        instrument: Instrument,
        yes: Ladder = (),
        no: Ladder = (),
        opening: tuple[Catalogue, int] | None = None,
    ) -> None:
        self.instrument = instrument
        self._book = Book(yes, no) if opening is None else None
        self._opening = opening
        self.structure = instrument.event.series.structure
        self.sub_title = instrument.sub_title
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
    def book(self) -> Book:
        book = self._book
        if book is None:
            assert self._opening is not None
            catalogue, number = self._opening
            book = self._book = Book(*catalogue.ladders(number))
        return book

    @property
    def state(self) -> TickerState:
        """What a ticker said last, or would say of a book that has not changed yet."""
        if self.last_ticker is not None:
            return self.last_ticker.state
        return _untraded(self.book)

    def stand(self, book: Book, position: int, changed_at: int | None) -> None:
        """Put the market where a recording ends."""
        self._book, self.position, self.changed_at = book, position, changed_at

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
        elif change.event_type == "price_level_structure_updated":
            self.structure = STRUCTURES[str(change.body["price_level_structure"])]
        elif change.event_type == "metadata_updated":
            self.sub_title = str(change.body["yes_sub_title"])

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


def _untraded(book: Book) -> TickerState:
    yes_bid, no_bid = max(book.yes, default=0), max(book.no, default=0)
    sizes = book.yes.get(yes_bid, 0), book.no.get(no_bid, 0)
    return TickerState(0, yes_bid, PRICE_ONE - no_bid, *sizes, 0, 0, 0, 0, 0)
