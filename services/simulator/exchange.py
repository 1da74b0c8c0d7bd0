"""The exchange as it stands: listed markets with their books and tape, and who hears of which change.

It is moved only by `publish`; it is the Feed of every live session. No I/O, no clock: time comes with the calls.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

from services.simulator import frames
from services.simulator.book import Ladder
from services.simulator.catalogue import Catalogue
from services.simulator.changes import Change, Closed, Created, Delta, Lifecycle, Ticker, Trade
from services.simulator.instruments import Series
from services.simulator.lifecycle import COMBO_CHANNEL, FEE_MESSAGE, MARKET_CHANNEL
from services.simulator.listing import Listing
from services.simulator.listings import Events, Listings
from services.simulator.session import Session
from services.simulator.subscription import BOOKS, TICKERS, TRADES, Subscription

BOOKS_MAX = 10_000
"""Books that are all looked at at once; a fraction of a second."""
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
        self.pause: int | None = None
        """While the exchange is closed for maintenance: when it expects to be back, microseconds."""
        self.tape: deque[tuple[int, Trade]] = deque(maxlen=trades_kept)
        """(number, trade), oldest first; numbers ascend and never repeat."""
        self.tape_disorder = 0
        """By how much a trade's time was ever before an earlier one's, microseconds: steps of the exchange's clock."""
        self.counts: Counter[str] = Counter()
        self.sessions: dict[int, Session] = {}
        self._by_id: dict[str, str] = {}
        self._trade_numbers = count(1)
        self._traded_until = 0
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
                if not (change.is_initial and self.listings.holds(change.instrument.ticker)):
                    self.list_market(change)
            elif isinstance(change, Closed):
                self.counts["closed"] += 1

    def begin_with(self, catalogue: Catalogue) -> None:
        """List what exists at the epoch; call it before anything is published."""
        self.series.update((series.ticker, series) for series in catalogue.series)
        self.events.begin_with(catalogue)
        self.listings.begin_with(catalogue)
        self.counts["created"] += catalogue.markets

    def list_market(self, change: Created) -> Listing:
        instrument = change.instrument
        event = instrument.event
        self.counts["created"] += 1
        self.series.setdefault(event.series.ticker, event.series)
        self.events.add(event)
        listing = Listing(instrument, change.yes, change.no)
        self.listings.add(listing)
        self._by_id[instrument.market_id] = instrument.ticker
        return listing

    def books(self) -> Iterator[dict[str, object]]:
        """Yield the records of all books as they stand; where there are more than BOOKS_MAX, of those that changed."""
        if len(self.listings) > BOOKS_MAX:
            return (listing.book_record() for listing in self.listings.changed())
        return (listing.book_record() for _, listing in self.listings.after(0))

    def markets_of(self, event_ticker: str) -> list[Listing]:
        """Return an event's markets in the order they were listed."""
        return self.listings.of_event(event_ticker)

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
        return self._by_id.get(market_id) or self.listings.ticker_of(market_id)

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
        self.listings.changing(delta.instrument).apply(delta)
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
        self._traded_until = max(self._traded_until, trade.at)
        self.tape_disorder = max(self.tape_disorder, self._traded_until - trade.at)
        listeners = self._listeners(TRADES, trade.instrument.ticker)
        body = frames.trade_body(trade) if listeners else b""
        for subscription in listeners:
            subscription.send("trade", body)

    def _ticker(self, ticker: Ticker) -> None:
        self.counts["ticker"] += 1
        self.listings.changing(ticker.instrument).last_ticker = ticker
        listeners = self._listeners(TICKERS, ticker.instrument.ticker)
        body = frames.ticker_body(ticker) if listeners else b""
        for subscription in listeners:
            subscription.send_unnumbered("ticker", body)

    def _lifecycle(self, change: Lifecycle) -> None:
        self.counts["lifecycle"] += 1
        self._follow(change)
        listeners = self._everything.get(change.channel, _NOBODY)
        body = frames.lifecycle_body(change) if listeners else b""
        for subscription in listeners:
            subscription.send(change.message_type, body)

    def _follow(self, change: Lifecycle) -> None:
        if change.message_type in (MARKET_CHANNEL, COMBO_CHANNEL):
            listing = self.listings.get(change.ticker)
            # What a new market's own message says is what it was listed with.
            if listing is not None and change.event_type != "created":
                self.listings.changing(listing.instrument).follow(change)
        elif change.message_type == FEE_MESSAGE:
            event = self.events.get(change.ticker)
            if event is not None:
                kind, multiplier = (
                    change.body[f"fee_{name}_override"] for name in ("type", "multiplier")
                )
                fee = (str(kind), float(str(multiplier))) if kind is not None else None
                self.events.replace(replace(event, fee=fee, updated_at=change.at))
