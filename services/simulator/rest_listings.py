"""The catalogue over REST: series, events and markets, newest first, in pages."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol, TypeVar

from libs.marketdata.units import SECOND
from services.simulator import rest_objects
from services.simulator.answers import NOT_FOUND, Answer, found
from services.simulator.exchange import Exchange
from services.simulator.instruments import Event, is_combo
from services.simulator.listing import Listing
from services.simulator.paging import (
    Query,
    decode_cursor,
    market_filter,
    read_integer,
    read_limit,
    read_page,
    read_status,
)

Row_co = TypeVar("Row_co", covariant=True)
BLOCK: Final = 256
"""Rows taken at once from a list that is walked backwards."""


class _Rows(Protocol[Row_co]):
    """A list that only grows, every row at its position for ever."""

    def __len__(self) -> int: ...
    def after(self, position: int) -> Iterator[tuple[int, Row_co]]:
        """Yield (position, row) from a position on."""


@dataclass(frozen=True, slots=True)
class RestListings:
    """Handlers of /series, /events and /markets.

    Args:
        now: time of the exchange, microseconds. seed, unknown_max: of the time, microseconds, for which a new market
            is not found by its ticker.
    """

    exchange: Exchange
    now: Callable[[], int]
    seed: int
    unknown_max: int
    _series_since: dict[str, int] = field(default_factory=dict)

    def series_list(self, query: Query) -> Answer:
        category = query.get("category")
        since = (read_integer(query, "GetSeriesList", "min_updated_ts") or 0) * SECOND
        self._date_series()
        return found(
            {
                "series": [
                    rest_objects.series(item, self._series_since.get(item.ticker, 0))
                    for item in self.exchange.series.values()
                    if (not category or item.category == category)
                    and self._series_since.get(item.ticker, 0) >= since
                ]
            }
        )

    def series_one(self, ticker: str) -> Answer:
        item = self.exchange.series.get(ticker)
        if item is None:
            return NOT_FOUND
        self._date_series()
        return found({"series": rest_objects.series(item, self._series_since.get(ticker, 0))})

    def events(self, query: Query) -> Answer:
        return self._events(query, combos=False, default=200)

    def combo_events(self, query: Query) -> Answer:
        return self._events(query, combos=True, default=100)

    def event_one(self, query: Query, ticker: str) -> Answer:
        item = self.exchange.events.get(ticker)
        if item is None:
            return NOT_FOUND
        markets = list(self._markets_of(ticker))
        event = rest_objects.event_text(
            item, markets if query.flag("with_nested_markets") else None
        )
        return Answer(200, f'{{"event":{event},"markets":[{",".join(markets)}]}}'.encode())

    def markets(self, query: Query) -> Answer:
        limit = read_limit(query, "GetMarkets", 100, 1000)
        takes = market_filter(query)
        now = self.now()
        rows = self._rows(query)
        page, cursor = read_page(rows, lambda listing: takes(listing, now), limit)
        texts = (rest_objects.market(listing, now) for listing in page)
        return Answer(200, rest_objects.markets(texts, cursor))

    def market_one(self, ticker: str) -> Answer:
        listing = self.exchange.listings.get(ticker)
        now = self.now()
        if listing is None or now < listing.instrument.created_at + self._unknown(ticker):
            return NOT_FOUND
        return Answer(200, f'{{"market":{rest_objects.market(listing, now)}}}'.encode())

    def _rows(self, query: Query) -> Iterator[tuple[int, Listing]]:
        """Return what a listing of markets looks at: what is named, else everything."""
        cursor = decode_cursor(query.get("cursor"))
        if "tickers" not in query and "event_ticker" not in query:
            return newest_first(self.exchange.listings, cursor)
        if "tickers" in query:
            named = map(self.exchange.listings.get, sorted(query.names("tickers")))
            few = [listing for listing in named if listing is not None]
        else:
            few = self.exchange.markets_of(query.get("event_ticker"))
        return islice(enumerate(few), cursor or 0, None)

    def _unknown(self, ticker: str) -> int:
        """Return for how long a new market is not found, microseconds."""
        draw = hashlib.blake2b(f"{self.seed}:{ticker}".encode(), digest_size=2).digest()
        return self.unknown_max * int.from_bytes(draw, "big") // 65_536

    def _markets_of(self, event_ticker: str) -> Iterator[str]:
        now = self.now()
        markets = self.exchange.markets_of(event_ticker)
        return (rest_objects.market(listing, now) for listing in markets)

    def _events(self, query: Query, combos: bool, default: int) -> Answer:
        limit = read_limit(query, "GetEvents", default, 200)
        takes = self._event_filter(query, combos)
        rows = newest_first(self.exchange.events, decode_cursor(query.get("cursor")))
        page, cursor = read_page(rows, takes, limit)
        is_nested = query.flag("with_nested_markets")
        texts = [
            rest_objects.event_text(item, self._markets_of(item.ticker) if is_nested else None)
            for item in page
        ]
        milestones = ',"milestones":[]' if query.flag("with_milestones") else ""
        text = f'{{"events":[{",".join(texts)}]{milestones},"cursor":"{cursor}"}}'
        return Answer(200, text.encode())

    def _event_filter(self, query: Query, combos: bool) -> Callable[[Event], bool]:
        series, named, statuses = (
            query.get("series_ticker"),
            query.names("tickers"),
            read_status(query),
        )
        updated = (read_integer(query, "GetEvents", "min_updated_ts") or 0) * SECOND
        close = (read_integer(query, "GetEvents", "min_close_ts") or 0) * SECOND
        now = self.now()

        def takes(item: Event) -> bool:
            if is_combo(item.ticker) != combos or max(item.created_at, item.updated_at) < updated:
                return False
            if (series and item.series.ticker != series) or (named and item.ticker not in named):
                return False
            if not statuses and not close:
                return True
            return any(
                (not statuses or listing.status(now) in statuses) and listing.close_at >= close
                for listing in self.exchange.markets_of(item.ticker)
            )

        return takes

    def _date_series(self) -> None:
        """Date every series by its first event: nothing of a series itself ever changes."""
        since = self._series_since
        for _, event in self.exchange.events.after(0):
            if len(since) == len(self.exchange.series):
                return
            since.setdefault(event.series.ticker, event.created_at)


def newest_first(rows: _Rows[Row_co], start: int | None) -> Iterator[tuple[int, Row_co]]:
    """Yield (position, row) backwards, from `start` (None: the last) to the first.

    What is added meanwhile lies before the first page: who reads on does not see it, as on the exchange.
    """
    high = len(rows) if start is None else max(0, min(start + 1, len(rows)))
    while high > 0:
        low = max(0, high - BLOCK)
        yield from reversed(list(islice(rows.after(low), high - low)))
        high = low
