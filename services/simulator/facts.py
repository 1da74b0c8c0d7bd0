"""The facts of a recording in our units: what a capture of it must hold, and the books it ends with."""

from libs.marketdata.units import (
    DAY,
    SECOND,
    ValueDoesNotFit,
    parse_price,
    parse_size,
)
from services.simulator.book import Book, Ladder
from services.simulator.changes import Delta, Trade, journal_line
from services.simulator.instruments import DECI_CENT, Event, Instrument, Series
from services.simulator.recording import RecordedFrame, Recording, express

_TICKER_PRICES = {
    "price": "price_dollars",
    "yes_bid": "yes_bid_dollars",
    "yes_ask": "yes_ask_dollars",
}
_TICKER_SIZES = ("yes_bid_size", "yes_ask_size", "last_trade_size", "volume", "open_interest")


def instrument_of(ticker: str, market_id: str, now: int) -> Instrument:
    """Make up a listing for a recorded ticker: series and event are read off its parts."""
    series_ticker, _, rest = ticker.partition("-")
    event_ticker = ticker.rpartition("-")[0] if "-" in rest else ticker
    series = Series(series_ticker, f"Recorded {series_ticker}", "Recorded", DECI_CENT)
    created_at = (now - DAY) // SECOND * SECOND
    event = Event(event_ticker, series, f"Recorded {event_ticker}", "", created_at)
    close_at = created_at + 60 * DAY
    return Instrument(ticker, market_id, event, ticker, created_at, created_at, close_at)


class Facts:
    """Everything a recording says, read once.

    Attributes:
        market_ids: by ticker ("" where none was seen). openings: market id and book to begin with, by ticker: the
            recorded first snapshot, or, where deltas come before any, the least book they fit on.
        first_snapshots: ids of the frames the openings were read from.
        books, positions, changed_at: as they stand at the end. trades: the tape. lines: the market journal.
    """

    def __init__(self, recording: Recording) -> None:
        self.market_ids: dict[str, str] = {}
        self.openings: dict[str, tuple[str, Ladder, Ladder]] = {}
        self.first_snapshots: set[int] = set()
        self.books: dict[str, Book] = {}
        self.positions: dict[str, int] = {}
        self.changed_at: dict[str, int] = {}
        self.trades: list[Trade] = []
        self.lines: list[str] = []
        self._missing: dict[str, Book] = {}
        for frame in recording.frames:
            if frame.ticker and frame.message_type != "error":
                self._take(frame, express(frame, recording.use_yes_price, False))
        for ticker, least in self._missing.items():
            opening = self.market_ids[ticker], least.ladder(True), least.ladder(False)
            self.openings.setdefault(ticker, opening)

    def _take(self, frame: RecordedFrame, body: dict[str, object]) -> None:
        market_id = str(body.get("market_id", ""))
        if not self.market_ids.get(frame.ticker):
            self.market_ids[frame.ticker] = market_id
        try:
            if frame.message_type == "orderbook_snapshot":
                self._snapshot(frame, body)
            elif frame.message_type == "orderbook_delta":
                self._delta(frame.ticker, body)
            elif frame.message_type == "trade":
                self._trade(frame.ticker, body)
            elif frame.message_type == "ticker":
                self._ticker(frame.ticker, body)
        except (ValueDoesNotFit, KeyError):
            self.lines.append(journal_line(kind="unreadable", frame=frame.envelope))

    @staticmethod
    def book(body: dict[str, object]) -> Book:
        """Read a snapshot's body (no prices in the own leg)."""
        book = Book()
        for side, name in ((True, "yes_dollars_fp"), (False, "no_dollars_fp")):
            levels = body.get(name, [])
            assert isinstance(levels, list)
            book.side(side).update((parse_price(price), parse_size(size)) for price, size in levels)
        return book

    @staticmethod
    def apply(book: Book, body: dict[str, object]) -> None:
        """Apply a delta's body; a level below zero (the recording has a hole) is simply gone."""
        side = body["side"] == "yes"
        book.apply(side, parse_price(str(body["price_dollars"])), parse_size(str(body["delta_fp"])))

    def _snapshot(self, frame: RecordedFrame, body: dict[str, object]) -> None:
        book = self.book(body)
        ticker = frame.ticker
        if ticker not in self.books:
            self.first_snapshots.add(id(frame))
            opening = str(body.get("market_id", "")), book.ladder(True), book.ladder(False)
            self.openings[ticker] = opening
        self.books[ticker] = book
        yes, no = book.ladder(True), book.ladder(False)
        self.lines.append(journal_line(kind="snapshot", ticker=ticker, yes=yes, no=no))

    def _delta(self, ticker: str, body: dict[str, object]) -> None:
        book = self.books.setdefault(ticker, Book())
        side = body["side"] == "yes"
        price, size = parse_price(str(body["price_dollars"])), parse_size(str(body["delta_fp"]))
        held = book.side(side).get(price, 0)
        if ticker not in self.openings:
            least = self._missing.setdefault(ticker, Book())
            if held + size < 0:
                least.apply(side, price, -(held + size))
                book.apply(side, price, -(held + size))
        book.apply(side, price, size)
        at = _time(body)
        position = self.positions[ticker] = self.positions.get(ticker, 0) + 1
        self.changed_at[ticker] = at
        instrument = instrument_of(ticker, self.market_ids[ticker], at)
        self.lines.append(Delta(at, instrument, side, price, size, position).journal_line())

    def _trade(self, ticker: str, body: dict[str, object]) -> None:
        trade = Trade(
            at=_time(body),
            instrument=instrument_of(ticker, "", _time(body)),
            trade_id=str(body["trade_id"]),
            yes_price=parse_price(str(body["yes_price_dollars"])),
            size=parse_size(str(body["count_fp"])),
            taker_side=body.get("taker_outcome_side", body.get("taker_side")) == "yes",
        )
        self.trades.append(trade)
        self.lines.append(trade.journal_line())

    def _ticker(self, ticker: str, body: dict[str, object]) -> None:
        prices = {name: parse_price(str(body[key])) for name, key in _TICKER_PRICES.items()}
        sizes = {name: parse_size(str(body[f"{name}_fp"])) for name in _TICKER_SIZES}
        dollars = {name: body[name] for name in ("dollar_volume", "dollar_open_interest")}
        self.lines.append(
            journal_line(
                kind="ticker", exchange_ts=_time(body), ticker=ticker, **prices, **sizes, **dollars
            )
        )


def _time(body: dict[str, object]) -> int:
    """Return ts_ms in microseconds; without it the message has no time and is unreadable."""
    millis = body["ts_ms"]
    if not isinstance(millis, int):
        raise ValueDoesNotFit(f"no time: {millis!r}")
    return millis * 1000
