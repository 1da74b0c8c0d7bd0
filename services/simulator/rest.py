"""REST endpoints of the exchange under /trade-api/v2. Reads need no signature, but a wrong one is refused."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from aiohttp import web
from aiohttp.typedefs import Middleware

from libs.marketdata.units import DAY, SECOND, format_rfc3339
from services.simulator import rest_objects
from services.simulator.exchange import Exchange
from services.simulator.frames import encode
from services.simulator.instruments import is_combo
from services.simulator.keys import KeyRing, Refusal, is_signed
from services.simulator.listing import Listing
from services.simulator.paging import (
    STATUS_FILTERS,
    BadParameter,
    MarketFilter,
    decode_cursor,
    encode_cursor,
    out_of_range,
    read_integer,
    read_limit,
)

PREFIX = "/trade-api/v2"
_NOT_FOUND = {"error": {"code": "not_found", "message": "not found"}}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_LIMITS = {
    "usage_tier": "basic",
    "read": {"refill_rate": 200, "bucket_capacity": 400},
    "write": {"refill_rate": 100, "bucket_capacity": 200},
    "grants": [],
}


def answer(body: object, status: int = 200) -> web.Response:
    """Answer with a JSON body."""
    return web.Response(body=encode(body), status=status, content_type="application/json")


def refused(refusal: Refusal) -> web.Response:
    """Answer 401 with the exchange's own words."""
    return web.Response(body=refusal.value, status=401, content_type="application/json")


@dataclass(frozen=True, slots=True)
class Rest:
    """Handlers over the exchange's state.

    Args:
        now: wall time in microseconds, as the signature check and the markets' status need it.
    """

    exchange: Exchange
    keys: KeyRing
    now: Callable[[], int]

    def routes(self) -> list[web.RouteDef]:
        get = web.get
        return [
            get(f"{PREFIX}/exchange/status", self.status),
            get(f"{PREFIX}/exchange/schedule", self.schedule),
            get(f"{PREFIX}/series", self.series_list),
            get(f"{PREFIX}/series/fee_changes", self.fee_changes),
            get(f"{PREFIX}/series/{{ticker}}", self.series_one),
            get(f"{PREFIX}/events", self.events),
            get(f"{PREFIX}/events/multivariate", self.combo_events),
            get(f"{PREFIX}/events/{{ticker}}", self.event_one),
            get(f"{PREFIX}/markets", self.markets),
            get(f"{PREFIX}/markets/orderbooks", self.orderbooks),
            get(f"{PREFIX}/markets/trades", self.trades),
            get(f"{PREFIX}/markets/{{ticker}}", self.market_one),
            get(f"{PREFIX}/markets/{{ticker}}/orderbook", self.orderbook),
            get(f"{PREFIX}/account/limits", self.limits),
            get(f"{PREFIX}/account/endpoint_costs", self.costs),
            get(f"{PREFIX}/historical/cutoff", self.cutoff),
            get(f"{PREFIX}/historical/markets", self.no_markets),
            get(f"{PREFIX}/historical/trades", self.no_trades),
        ]

    def refusal(self, request: web.Request) -> Refusal | None:
        """Check the signature of a request, whether it has one or not."""
        return self.keys.refuse(request.headers, request.method, request.path, self.now() // 1000)

    async def status(self, _request: web.Request) -> web.Response:
        shard = {
            "exchange_index": 0,
            "description": "default",
            "exchange_active": True,
            "trading_active": True,
            "intra_exchange_transfers_active": True,
        }
        body: dict[str, object] = {"exchange_active": True, "trading_active": True}
        body |= {"intra_exchange_transfers_active": True, "exchange_index_statuses": [shard]}
        return answer(body)

    async def schedule(self, _request: web.Request) -> web.Response:
        hours: dict[str, object] = {
            day: [{"open_time": "00:00", "close_time": "00:00"}] for day in _DAYS
        }
        today = self.now() // DAY * DAY
        hours |= {
            "start_time": format_rfc3339(today - 365 * DAY),
            "end_time": format_rfc3339(today + 365 * DAY),
        }
        return answer({"schedule": {"standard_hours": [hours], "maintenance_windows": []}})

    async def series_list(self, request: web.Request) -> web.Response:
        category = request.query.get("category", "")
        found = [
            rest_objects.series(item, self.now() // DAY * DAY)
            for item in self.exchange.series.values()
            if not category or item.category == category
        ]
        return answer({"series": found})

    async def fee_changes(self, _request: web.Request) -> web.Response:
        return answer({"series_fee_change_arr": []})

    async def series_one(self, request: web.Request) -> web.Response:
        item = self.exchange.series.get(request.match_info["ticker"])
        if item is None:
            return answer(_NOT_FOUND, 404)
        return answer({"series": rest_objects.series(item, self.now() // DAY * DAY)})

    async def events(self, request: web.Request) -> web.Response:
        return self._events(request, combos=False, default=200)

    async def combo_events(self, request: web.Request) -> web.Response:
        return self._events(request, combos=True, default=100)

    async def event_one(self, request: web.Request) -> web.Response:
        item = self.exchange.events.get(request.match_info["ticker"])
        if item is None:
            return answer(_NOT_FOUND, 404)
        markets = self._markets_of(item.ticker)
        nested = markets if request.query.get("with_nested_markets") == "true" else None
        return answer({"event": rest_objects.event(item, nested), "markets": markets})

    async def markets(self, request: web.Request) -> web.Response:
        query = request.query
        limit = read_limit(query, "GetMarkets", 100, 1000)
        wanted = MarketFilter.read(query)
        start = decode_cursor(query.get("cursor", "")) or 0
        now = self.now()
        page: list[Listing] = []
        cursor = ""
        for number, listing in self._after(start):
            if not wanted.takes(listing, now):
                continue
            if len(page) == limit:
                cursor = encode_cursor(number)
                break
            page.append(listing)
        return answer(
            {"markets": [rest_objects.market(item, now) for item in page], "cursor": cursor}
        )

    async def market_one(self, request: web.Request) -> web.Response:
        listing = self.exchange.listings.get(request.match_info["ticker"])
        if listing is None:
            return answer(_NOT_FOUND, 404)
        return answer({"market": rest_objects.market(listing, self.now())})

    async def orderbook(self, request: web.Request) -> web.Response:
        depth = read_limit(request.query, "GetMarketOrderbook", 0, 100, "depth")
        listing = self.exchange.listings.get(request.match_info["ticker"])
        if listing is None:
            return answer(_NOT_FOUND, 404)
        return answer({"orderbook_fp": _book(listing, depth)})

    async def orderbooks(self, request: web.Request) -> web.Response:
        named = [name for text in request.query.getall("tickers", []) for name in text.split(",")]
        tickers = [name for name in named if name]
        if not tickers:
            raise out_of_range("GetMarketOrderbooks", "Tickers", "required")
        if len(tickers) > 100:
            raise out_of_range("GetMarketOrderbooks", "Tickers", "lte")
        found = (self.exchange.listings.get(ticker) for ticker in dict.fromkeys(tickers))
        books = [
            {"ticker": listing.instrument.ticker, "orderbook_fp": _book(listing, 0)}
            for listing in found
            if listing is not None
        ]
        return answer({"orderbooks": books})

    async def trades(self, request: web.Request) -> web.Response:
        query = request.query
        limit = read_limit(query, "GetTrades", 100, 1000)
        low = (read_integer(query, "GetTrades", "min_ts") or 0) * SECOND
        high = read_integer(query, "GetTrades", "max_ts")
        upper = (high + 1) * SECOND if high is not None else 1 << 62
        before = decode_cursor(query.get("cursor", "")) or 1 << 62
        ticker = query.get("ticker", "")
        page: list[dict[str, object]] = []
        cursor = ""
        last = 0
        for number, trade in reversed(self.exchange.tape):
            if number >= before or trade.at >= upper:
                continue
            if trade.at < low:
                break
            if ticker and trade.instrument.ticker != ticker:
                continue
            if len(page) == limit:
                cursor = encode_cursor(last)
                break
            page.append(rest_objects.trade(trade))
            last = number
        return answer({"trades": page, "cursor": cursor})

    async def limits(self, request: web.Request) -> web.Response:
        refusal = self.refusal(request)
        return answer(_LIMITS) if refusal is None else refused(refusal)

    async def costs(self, _request: web.Request) -> web.Response:
        return answer({"default_cost": 10, "endpoint_costs": []})

    async def cutoff(self, _request: web.Request) -> web.Response:
        day = format_rfc3339(self.now() // DAY * DAY - 60 * DAY)
        names = ("market_settled_ts", "trades_created_ts", "orders_updated_ts")
        return answer(dict.fromkeys((*names, "market_positions_last_updated_ts"), day))

    async def no_markets(self, _request: web.Request) -> web.Response:
        return answer({"markets": [], "cursor": ""})

    async def no_trades(self, _request: web.Request) -> web.Response:
        return answer({"trades": [], "cursor": ""})

    def _after(self, start: int) -> Iterator[tuple[int, Listing]]:
        listings = self.exchange.listings.values()
        return enumerate(islice(listings, start, None), start)

    def _markets_of(self, event_ticker: str) -> list[dict[str, object]]:
        now = self.now()
        return [
            rest_objects.market(listing, now)
            for listing in self.exchange.by_event.get(event_ticker, ())
        ]

    def _events(self, request: web.Request, combos: bool, default: int) -> web.Response:
        query = request.query
        limit = read_limit(query, "GetEvents", default, 200)
        start = decode_cursor(query.get("cursor", "")) or 0
        series = query.get("series_ticker", "")
        named = frozenset(filter(None, query.get("tickers", "").split(",")))
        status = query.get("status", "")
        page: list[dict[str, object]] = []
        cursor = ""
        for number, item in enumerate(islice(self.exchange.events.values(), start, None), start):
            if is_combo(item.ticker) != combos or (series and item.series.ticker != series):
                continue
            if (named and item.ticker not in named) or not self._has_status(item.ticker, status):
                continue
            if len(page) == limit:
                cursor = encode_cursor(number)
                break
            is_nested = query.get("with_nested_markets") == "true"
            nested = self._markets_of(item.ticker) if is_nested else None
            page.append(rest_objects.event(item, nested))
        return answer({"events": page, "cursor": cursor})

    def _has_status(self, event_ticker: str, status: str) -> bool:
        """Say whether an event has a market of this status; no status given: always."""
        wanted = STATUS_FILTERS.get(status)
        if wanted is None:
            return True
        now = self.now()
        markets = self.exchange.by_event.get(event_ticker, ())
        return any(listing.status(now) in wanted for listing in markets)


def _book(listing: Listing, depth: int) -> dict[str, object]:
    return rest_objects.orderbook(listing.book.ladder(True), listing.book.ladder(False), depth)


def guard(rest: Rest) -> Middleware:
    """Return the middleware: a signed request must be signed well, a refused parameter is a 400."""

    @web.middleware
    async def check(
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        is_read = request.path.startswith(f"{PREFIX}/")
        refusal = rest.refusal(request) if is_read and is_signed(request.headers) else None
        if refusal is not None:
            return refused(refusal)
        try:
            return await handler(request)
        except BadParameter as error:
            return answer(error.body, 400)
        except web.HTTPNotFound:
            return answer(_NOT_FOUND, 404)

    return check
