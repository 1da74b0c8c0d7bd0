"""The REST client: every read of the exchange's catalogue, books and tape, within the account's budget.

Listings are read to the empty cursor: an empty page does not end one, a cursor that comes twice does, with an error.
How one request is made, limited and repeated is rest_http.py's business.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from libs.exchange.errors import PagingBroken, Undecodable
from libs.exchange.rest_http import HttpReader, Params, RestSettings, open_session
from libs.exchange.rest_wire import (
    AccountLimits,
    Answer,
    EndpointCosts,
    ExchangeStatus,
    Json,
    Page,
    RestBook,
    RestTrade,
    decode_answer,
    decode_listing,
    decode_page,
)
from libs.exchange.wire import UNREADABLE
from libs.marketdata.units import SECOND

__all__ = ["RestClient", "RestSettings", "open_session"]

T = TypeVar("T")

MARKETS_PER_PAGE = 1000
TRADES_PER_PAGE = 1000
EVENTS_PER_PAGE = 200
BOOKS_PER_REQUEST_MAX = 100
BOOKS_PATH = "/markets/orderbooks"
MICROSECONDS_MIN = 10**14
"""Wall times in microseconds are above this (1973); a smaller number is in another unit."""


class RestClient(HttpReader):
    """Reads of one environment, signed when there is a signer.

    Args of the constructor: base_url with its path; a signer, or what gives the one of the moment; a bucket counted in reads (cost 1 each); sleep and jitter are
    replaced by tests.

    Every method raises:
        AuthRejected: the key is refused.
        ClockSkewed, TransportError, RateLimited, ApiUnavailable: still failing after the last attempt; retryable.
        Undecodable: the answer is not what is documented.
        ApiError: refused for good, for example 404.
    """

    # --- exchange and account ---

    async def exchange_status(self) -> Answer[ExchangeStatus]:
        """Read whether the exchange and its trading are active; a 5xx that says so is an answer, not a fault."""
        raw = await self.request("/exchange/status", (), _is_status_body)
        status = decode_answer(raw, ExchangeStatus).value
        status.body = decode_answer(raw, Json).value
        return Answer(status, raw.requested_at, raw.received_at)

    async def exchange_schedule(self) -> Answer[Json]:
        """Read standard hours and maintenance windows, as they come."""
        return decode_answer(await self.request("/exchange/schedule"), Json)

    async def account_limits(self) -> Answer[AccountLimits]:
        """Read the account's token buckets; needs a key."""
        return decode_answer(await self.request("/account/limits"), AccountLimits)

    async def endpoint_costs(self) -> Answer[EndpointCosts]:
        """Read what requests cost; public."""
        return decode_answer(await self.request("/account/endpoint_costs"), EndpointCosts)

    # --- catalogue ---

    async def series(self, *, category: str = "", min_updated_ts: int | None = None) -> Page[Json]:
        """Read all series in one answer (some 13,000; 16 MB). min_updated_ts in microseconds."""
        params = [*_text("category", category), *_since("min_updated_ts", min_updated_ts)]
        raw = await self.request("/series", params)
        return decode_page(decode_listing(raw, "series")[0], Json, raw)

    def events(
        self,
        *,
        status: str = "",
        series_ticker: str = "",
        tickers: Sequence[str] = (),
        min_updated_ts: int | None = None,
        with_nested_markets: bool = False,
        limit: int = EVENTS_PER_PAGE,
    ) -> AsyncIterator[Page[Json]]:
        """Yield the pages of events, combos excluded. min_updated_ts in microseconds."""
        params = [
            *_text("status", status),
            *_text("series_ticker", series_ticker),
            *_text("tickers", ",".join(tickers)),
            *_since("min_updated_ts", min_updated_ts),
            *(_text("with_nested_markets", "true") if with_nested_markets else ()),
        ]
        return self._pages("/events", "events", params, limit, Json)

    def multivariate_events(
        self, *, series_ticker: str = "", limit: int = EVENTS_PER_PAGE
    ) -> AsyncIterator[Page[Json]]:
        """Yield the pages of combo events."""
        params = _text("series_ticker", series_ticker)
        return self._pages("/events/multivariate", "events", params, limit, Json)

    def markets(
        self,
        *,
        status: str = "",
        min_updated_ts: int | None = None,
        min_close_ts: int | None = None,
        max_close_ts: int | None = None,
        mve_filter: str = "",
        series_ticker: str = "",
        event_ticker: str = "",
        tickers: Sequence[str] = (),
        limit: int = MARKETS_PER_PAGE,
    ) -> AsyncIterator[Page[Json]]:
        """Yield the pages of markets.

        status is a filter word (unopened, open, paused, closed, settled), not a market's own status. Times are in
        microseconds and exclude one another: min_updated_ts follows metadata only, and goes with nothing but
        mve_filter="exclude" and series_ticker; min_close_ts and max_close_ts go with status closed or none.
        """
        params = [
            *_text("status", status),
            *_since("min_updated_ts", min_updated_ts),
            *_since("min_close_ts", min_close_ts),
            *_until("max_close_ts", max_close_ts),
            *_text("mve_filter", mve_filter),
            *_text("series_ticker", series_ticker),
            *_text("event_ticker", event_ticker),
            *_text("tickers", ",".join(tickers)),
        ]
        return self._pages("/markets", "markets", params, limit, Json)

    async def market(self, ticker: str) -> Answer[Json]:
        """Read one market; ApiError with status 404 may only mean that it was created a moment ago."""
        path = f"/markets/{quote(ticker, safe='')}"
        raw = await self.request(path, endpoint="/markets/{ticker}")
        market = decode_answer(raw, Json).value.get("market")
        if not isinstance(market, dict):
            raise Undecodable("REST answer: no market in it")
        return Answer(market, raw.requested_at, raw.received_at)

    # --- books and tape ---

    async def orderbook(self, ticker: str) -> Answer[RestBook]:
        """Read one book, all levels; up to about 15 s old."""
        path = f"/markets/{quote(ticker, safe='')}/orderbook"
        raw = await self.request(path, endpoint="/markets/{ticker}/orderbook")
        answer = decode_answer(raw, RestBook)
        answer.value.ticker = ticker
        return answer

    async def orderbooks(self, tickers: Sequence[str]) -> Page[RestBook]:
        """Read the books of at most 100 markets; a market the exchange leaves out is missing, a bad one `rejected`."""
        if not 0 < len(tickers) <= BOOKS_PER_REQUEST_MAX:
            raise ValueError(f"1 to {BOOKS_PER_REQUEST_MAX} markets a request, not {len(tickers)}")
        raw = await self.request(BOOKS_PATH, [("tickers", name) for name in tickers])
        return decode_page(decode_listing(raw, "orderbooks")[0], RestBook, raw)

    def trades(
        self,
        ticker: str = "",
        min_ts: int | None = None,
        max_ts: int | None = None,
        *,
        limit: int = TRADES_PER_PAGE,
    ) -> AsyncIterator[Page[RestTrade]]:
        """Yield the pages of the tape, newest first; without a ticker that of every market.

        min_ts and max_ts are in microseconds, widened to the exchange's whole seconds.
        """
        params = [
            *_text("ticker", ticker),
            *_since("min_ts", min_ts),
            *_until("max_ts", max_ts),
        ]
        return self._pages("/markets/trades", "trades", params, limit, RestTrade)

    # --- pages ---

    async def _pages(
        self, path: str, name: str, params: Params, limit: int, kind: type[T]
    ) -> AsyncIterator[Page[T]]:
        cursor, seen = "", set[str]()
        for _ in range(self.settings.pages_max):
            raw = await self.request(
                path, [*params, ("limit", str(limit)), *_text("cursor", cursor)]
            )
            items, cursor = decode_listing(raw, name)
            yield decode_page(items, kind, raw)
            if not cursor:
                return
            if cursor in seen:
                raise PagingBroken(f"GET {path}: the cursor {cursor[:40]!r} came twice")
            seen.add(cursor)
        raise PagingBroken(f"GET {path}: no end after {self.settings.pages_max} pages")


def _is_status_body(status: int, body: bytes) -> bool:
    """Tell whether this is the exchange's status: documented for 500, 503 and 504 too."""
    if status < 400:
        return True
    if status < 500:
        return False
    try:
        value = msgspec.json.decode(body, type=ExchangeStatus)
    except UNREADABLE:
        return False
    return value.exchange_active is not None


def _text(name: str, value: str) -> list[tuple[str, str]]:
    return [(name, value)] if value else []


def _since(name: str, moment: int | None) -> list[tuple[str, str]]:
    return [] if moment is None else [(name, str(_microseconds(name, moment) // SECOND))]


def _until(name: str, moment: int | None) -> list[tuple[str, str]]:
    return [] if moment is None else [(name, str(-(-_microseconds(name, moment) // SECOND)))]


def _microseconds(name: str, moment: int) -> int:
    if moment < MICROSECONDS_MIN:
        raise ValueError(f"{name} is in microseconds, {moment} is not")
    return moment
