"""What trading moves, over REST: books as they stand, and the tape, newest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.simulator import rest_objects
from services.simulator.answers import NOT_FOUND, Answer, found
from services.simulator.changes import Trade
from services.simulator.exchange import Exchange
from services.simulator.listing import Listing
from services.simulator.paging import (
    Query,
    decode_cursor,
    encode_cursor,
    out_of_range,
    read_bounds,
    read_limit,
)

BOOKS_MAX: Final = 100
TICKER_CHARS_MAX: Final = 200
_ALWAYS: Final = (0, 1 << 62)


@dataclass(frozen=True, slots=True)
class RestTrading:
    """Handlers of books and trades."""

    exchange: Exchange

    def orderbook(self, query: Query, ticker: str) -> Answer:
        depth = read_limit(query, "GetMarketOrderbook", 0, 100, "depth")
        listing = self.exchange.listings.get(ticker)
        if listing is None:
            return NOT_FOUND
        return found({"orderbook_fp": _book(listing, depth)})

    def orderbooks(self, query: Query) -> Answer:
        """Answer with the books of 1 to 100 named markets; an unknown one is left out."""
        tickers = query.all("tickers")
        if not tickers:
            raise out_of_range("GetMarketOrderbooks", "tickers", "required")
        if len(tickers) > BOOKS_MAX:
            raise out_of_range("GetMarketOrderbooks", "tickers", "max")
        for place, ticker in enumerate(tickers):
            if len(ticker) > TICKER_CHARS_MAX:
                raise out_of_range("GetMarketOrderbooks", f"tickers[{place}]", "max")
        listings = (self.exchange.listings.get(ticker) for ticker in dict.fromkeys(tickers))
        books = [
            {"ticker": listing.instrument.ticker, "orderbook_fp": _book(listing, 0)}
            for listing in listings
            if listing is not None
        ]
        return found({"orderbooks": books})

    def trades(self, query: Query) -> Answer:
        limit = read_limit(query, "GetTrades", 100, 1000)
        low, high = read_bounds(query, "GetTrades", "") or _ALWAYS
        kind = query.get("is_block_trade")
        if kind not in ("", "true", "false"):
            raise out_of_range("GetTrades", "is_block_trade", "boolean")
        ticker = query.get("ticker")
        page: list[dict[str, object]] = []
        last = 0
        for number, trade in self._tape(decode_cursor(query.get("cursor"))):
            if trade.at < low - self.exchange.tape_disorder:
                break
            if not low <= trade.at <= high or (ticker and trade.instrument.ticker != ticker):
                continue
            if kind and trade.is_block != (kind == "true"):
                continue
            if len(page) == limit:
                return found({"trades": page, "cursor": encode_cursor(last)})
            page.append(rest_objects.trade(trade))
            last = number
        return found({"trades": page, "cursor": ""})

    def _tape(self, before: int | None) -> Iterator[tuple[int, Trade]]:
        """Return the tape backwards, from below a number (None: the end)."""
        tape = self.exchange.tape
        skipped = max(0, tape[-1][0] - before + 1) if tape and before is not None else 0
        return islice(reversed(tape), skipped, None)


def _book(listing: Listing, depth: int) -> dict[str, object]:
    return rest_objects.orderbook(listing.book.ladder(True), listing.book.ladder(False), depth)
