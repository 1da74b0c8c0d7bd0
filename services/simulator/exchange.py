"""The exchange as it stands: listed markets with their books and tape, and who hears of which change.

It is moved only by `publish`; it is the Feed of every live session. No I/O, no clock: time comes with the calls.
"""

from collections import Counter, deque
from collections.abc import Iterable
from itertools import count

from services.simulator import frames
from services.simulator.book import Ladder
from services.simulator.changes import Change, Closed, Created, Delta, Lifecycle, Ticker, Trade
from services.simulator.instruments import Series
from services.simulator.listing import Events, Listing, Listings
from services.simulator.session import Session
from services.simulator.subscription import BOOKS, TICKERS, TRADES, Subscription

_NOBODY: list[Subscription] = []


class Exchange:
    """State of everything that is listed and of everybody who listens.

    Args:
        trades_kept: how many trades the tape remembers.
    """

    def __init__(self, trades_kept: int) -> None:
        self.opens_with_snapshots = True
        self.listings = Listings()
        self.series: dict[str, Series] = {}
        self.events = Events()
        self.by_event: dict[str, list[Listing]] = {}
        self.pause: int | None = None
        """While the exchange is closed for maintenance: when it expects to be back, microseconds."""
        self.tape: deque[tuple[int, Trade]] = deque(maxlen=trades_kept)
        """(number, trade), oldest first; numbers ascend and never repeat."""
        self.counts: Counter[str] = Counter()
        self.sessions: dict[int, Session] = {}
        self._by_id: dict[str, str] = {}
        self._trade_numbers = count(1)
        self._everything: dict[str, list[Subscription]] = {}
        self._named: dict[str, dict[str, list[Subscription]]] = {}

    def publish(self, changes: Iterable[Change], now_ms: int) -> None:
        """Apply changes in order and put their frames into the sessions that listen."""
        for session in self.sessions.values():
            session.set_time(now_ms)
        for change in changes:
            if isinstance(change, Delta):
                self._delta(change)
            elif isinstance(change, Trade):
                self._trade(change)
            elif isinstance(change, Ticker):
                self._ticker(change)
            elif isinstance(change, Lifecycle):
                self._lifecycle(change)
            elif isinstance(change, Created):
                self.list_market(change)
            else:
                self._closed(change)

    def list_market(self, change: Created) -> Listing:
        instrument = change.instrument
        event = instrument.event
        self.counts["created"] += 1
        self.series.setdefault(event.series.ticker, event.series)
        self.events.setdefault(event.ticker, event)
        listing = Listing(instrument, change.yes, change.no)
        self.listings[instrument.ticker] = listing
        self.by_event.setdefault(event.ticker, []).append(listing)
        self._by_id[instrument.market_id] = instrument.ticker
        return listing

    def markets_of(self, event_ticker: str) -> list[Listing]:
        """Return an event's markets in the order they were listed."""
        return self.by_event.get(event_ticker, [])

    def join(self, subscription: Subscription, tickers: list[str] | None) -> None:
        """Begin to send a subscription the changes of these markets (None: of all)."""
        if tickers is None:
            self._everything.setdefault(subscription.channel, []).append(subscription)
            return
        named = self._named.setdefault(subscription.channel, {})
        for ticker in tickers:
            named.setdefault(ticker, []).append(subscription)

    def leave(self, subscription: Subscription, tickers: list[str] | None) -> None:
        """Stop sending it the changes of these markets (None: all, for ever)."""
        if tickers is None and subscription.tickers is None:
            self._everything[subscription.channel].remove(subscription)
            return
        named = self._named.get(subscription.channel, {})
        for ticker in tickers if tickers is not None else subscription.tickers or ():
            listeners = named.get(ticker, [])
            if subscription in listeners:
                listeners.remove(subscription)
            if not listeners:
                named.pop(ticker, None)

    def snapshot(self, _subscription: Subscription, ticker: str) -> tuple[str, Ladder, Ladder, int]:
        """Return market id, ladders and position; an unknown market has an empty book and no id."""
        listing = self.listings.get(ticker)
        if listing is None:
            return "", (), (), 0
        yes, no = listing.book.ladder(True), listing.book.ladder(False)
        # A market that never had a book has no id in its snapshots: so it was seen on the wire.
        market_id = listing.instrument.market_id if yes or no or listing.position else ""
        return market_id, yes, no, listing.position

    def send_last_ticker(self, subscription: Subscription, ticker: str) -> None:
        listing = self.listings.get(ticker)
        if listing is not None and listing.last_ticker is not None:
            subscription.send_unnumbered(TICKERS, frames.ticker_body(listing.last_ticker))

    def ticker_of(self, market_id: str) -> str | None:
        return self._by_id.get(market_id)

    def market_id_of(self, ticker: str) -> str:
        listing = self.listings.get(ticker)
        return listing.instrument.market_id if listing is not None else ""

    def _listeners(self, channel: str, ticker: str) -> list[Subscription]:
        named = self._named.get(channel)
        listeners = named.get(ticker, _NOBODY) if named is not None else _NOBODY
        everything = self._everything.get(channel)
        return [*listeners, *everything] if everything else listeners

    def _delta(self, delta: Delta) -> None:
        ticker = delta.instrument.ticker
        self.counts["delta"] += 1
        self.listings[ticker].apply(delta)
        bodies: list[bytes | None] = [None, None]
        for subscription in self._listeners(BOOKS, ticker):
            scale = subscription.use_yes_price
            body = bodies[scale]
            if body is None:
                body = bodies[scale] = frames.delta_body(delta, scale)
            subscription.send(BOOKS, body)

    def _trade(self, trade: Trade) -> None:
        self.counts["trade"] += 1
        self.tape.append((next(self._trade_numbers), trade))
        listeners = self._listeners(TRADES, trade.instrument.ticker)
        body = frames.trade_body(trade) if listeners else b""
        for subscription in listeners:
            subscription.send("trade", body)

    def _ticker(self, ticker: Ticker) -> None:
        self.counts["ticker"] += 1
        self.listings[ticker.instrument.ticker].last_ticker = ticker
        listeners = self._listeners(TICKERS, ticker.instrument.ticker)
        body = frames.ticker_body(ticker) if listeners else b""
        for subscription in listeners:
            subscription.send_unnumbered("ticker", body)

    def _lifecycle(self, change: Lifecycle) -> None:
        self.counts["lifecycle"] += 1
        listing = self.listings.get(change.ticker)
        if listing is not None:
            listing.follow(change)
        body = frames.lifecycle_body(change)
        for subscription in self._everything.get(change.channel, _NOBODY):
            subscription.send(change.message_type, body)

    def _closed(self, _change: Closed) -> None:
        self.counts["closed"] += 1
