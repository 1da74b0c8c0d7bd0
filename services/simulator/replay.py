"""Replay: recorded frames sent to whoever subscribes, from the first one, at the recorded pace.

Every subscription plays the recording for itself, from the moment it names a market: so nobody comes too late. By default
sid and seq are the subscription's own; verbatim keeps the recorded ones, holes included.
"""

import heapq
import itertools
from dataclasses import dataclass

from libs.marketdata.units import ValueDoesNotFit
from services.simulator.book import Book, Ladder
from services.simulator.changes import Created
from services.simulator.exchange import Exchange
from services.simulator.facts import Facts, instrument_of
from services.simulator.frames import encode
from services.simulator.recording import RecordedFrame, Recording, express
from services.simulator.settings import ReplaySettings
from services.simulator.subscription import BOOKS, TICKERS, Subscription


@dataclass(slots=True)
class _Playing:
    """One subscription's way through one market (or, with ticker None, through all of a channel)."""

    subscription: Subscription
    is_over: bool = False


class Replay:
    """The Feed of sessions that hear a recording.

    Args:
        exchange: gets the recorded markets listed, for REST.
        now: microseconds, the listing time's reference.
    """

    def __init__(
        self, recording: Recording, settings: ReplaySettings, exchange: Exchange, now: int
    ) -> None:
        self._recording = recording
        self._settings = settings
        self._exchange = exchange
        self.opens_with_snapshots = not settings.verbatim
        self._due: list[tuple[int, int, _Playing, RecordedFrame]] = []
        self._numbers = itertools.count()
        self._playing: dict[tuple[Subscription, str | None], _Playing] = {}
        self._books: dict[tuple[Subscription, str], Book] = {}
        self._positions: dict[tuple[Subscription, str], int] = {}
        self.lines: list[str] = []
        """The market journal: every recorded fact in our units, in order."""
        self._openings: dict[str, tuple[str, Ladder, Ladder]] = {}
        self._first_snapshots: set[int] = set()
        self._list(now)

    @property
    def sids(self) -> dict[str, int]:
        """The sids sessions have to use."""
        return self._recording.sids if self._settings.verbatim else {}

    def _list(self, now: int) -> None:
        facts = Facts(self._recording)
        for ticker, market_id in facts.market_ids.items():
            self._exchange.list_market(
                Created(now, instrument_of(ticker, market_id, now), is_initial=True)
            )
        self._openings = facts.openings
        self._first_snapshots = facts.first_snapshots
        for ticker, book in facts.books.items():
            listing = self._exchange.listings[ticker]
            listing.stand(book, facts.positions.get(ticker, 0), facts.changed_at.get(ticker))
        for number, trade in enumerate(facts.trades, 1):
            self._exchange.tape.append((number, trade))
        self.lines = facts.lines

    def join(self, subscription: Subscription, tickers: list[str] | None) -> None:
        """Schedule the recorded frames of these markets for this subscription."""
        begin = subscription.session.now_ms * 1000
        wanted = set(tickers) if tickers is not None else None
        for ticker in tickers if tickers is not None else (None,):
            self._playing[subscription, ticker] = _Playing(subscription)
        for frame in self._recording.frames:
            if frame.channel != subscription.channel or not self._is_for(frame, wanted):
                continue
            if id(frame) in self._first_snapshots and self.opens_with_snapshots:
                continue
            key = frame.ticker if wanted is not None and frame.ticker in wanted else None
            playing = self._playing.get((subscription, key))
            if playing is None:
                playing = self._playing[subscription, key] = _Playing(subscription)
            offset = frame.at - self._recording.begin
            speed = self._settings.speed
            due = begin + (int(offset / speed) if speed > 0 else 0)
            heapq.heappush(self._due, (due, next(self._numbers), playing, frame))

    def _is_for(self, frame: RecordedFrame, wanted: set[str] | None) -> bool:
        if frame.message_type == "error":
            return self._settings.verbatim
        return wanted is None or frame.ticker in wanted

    def leave(self, subscription: Subscription, tickers: list[str] | None) -> None:
        """Forget what is still due of these markets (None: of all)."""
        for key in [key for key in self._playing if key[0] is subscription]:
            if tickers is None or key[1] in tickers:
                self._playing.pop(key).is_over = True
        for book in [key for key in self._books if key[0] is subscription]:
            if tickers is None or book[1] in tickers:
                del self._books[book]
                self._positions.pop(book, None)

    def snapshot(self, subscription: Subscription, ticker: str) -> tuple[str, Ladder, Ladder, int]:
        """Return the book as this subscription has been told it so far."""
        market_id, yes, no = self._openings.get(ticker, ("", (), ()))
        book = self._books.setdefault((subscription, ticker), Book(yes, no))
        position = self._positions.get((subscription, ticker), 0)
        return market_id, book.ladder(True), book.ladder(False), position

    def send_last_ticker(self, subscription: Subscription, ticker: str) -> None:
        """Nothing: a recording's tickers come in their turn."""

    def ticker_of(self, market_id: str) -> str | None:
        return self._exchange.ticker_of(market_id)

    def market_id_of(self, ticker: str) -> str:
        return self._exchange.market_id_of(ticker)

    def tick(self, now: int) -> None:
        """Send what is due; `now` in microseconds."""
        while self._due and self._due[0][0] <= now:
            _, _, playing, frame = heapq.heappop(self._due)
            if not playing.is_over:
                self._send(playing.subscription, frame)

    def _send(self, subscription: Subscription, frame: RecordedFrame) -> None:
        session = subscription.session
        self._follow(subscription, frame)
        body = express(frame, self._recording.use_yes_price, subscription.use_yes_price)
        self._exchange.counts[frame.message_type] += 1
        if self._settings.verbatim:
            session.out.append(encode(frame.envelope | {"msg": body}) + b"\n")
            session.written.add(subscription)
            subscription.seq = int(frame.envelope.get("seq", subscription.seq))
            return
        stamp, sent = session.stamp, frame.envelope.get("sending_ts_ms")
        session.stamp = b',"sending_ts_ms":%d' % sent if isinstance(sent, int) else b""
        if frame.channel == TICKERS:
            subscription.send_unnumbered(frame.message_type, encode(body))
        else:
            subscription.send(frame.message_type, encode(body))
        session.stamp = stamp

    def _follow(self, subscription: Subscription, frame: RecordedFrame) -> None:
        """Keep the book that this subscription should have by now."""
        if frame.channel != BOOKS or frame.message_type == "error":
            return
        key = subscription, frame.ticker
        _, yes, no = self._openings.get(frame.ticker, ("", (), ()))
        book = self._books.setdefault(key, Book(yes, no))
        own = express(frame, self._recording.use_yes_price, False)
        try:
            if frame.message_type == "orderbook_delta":
                Facts.apply(book, own)
                self._positions[key] = self._positions.get(key, 0) + 1
            else:
                self._books[key] = Facts.book(own)
        except ValueDoesNotFit:
            return
